package environment

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestNeedless(t *testing.T) {
	begun := time.Now()
	at := func(serial string, seconds int) Entry {
		seen := begun.Add(time.Duration(seconds) * time.Second)
		return Entry{Serial: serial, Seen: seen, Due: seen.Add(20 * time.Second)}
	}
	for name, test := range map[string]struct {
		entries  []Entry
		expected []string
	}{
		"if there was none, expect nothing":                   {},
		"if each was due, expect nothing":                     {[]Entry{at("a", 0), at("b", 20), at("c", 45)}, nil},
		"if one was not due, expect for how long":             {[]Entry{at("a", 0), at("b", 19)}, []string{"version 1: serial a was not due for 1s"}},
		"if one is written again, expect it":                  {[]Entry{at("a", 0), at("a", 20)}, []string{"version 1: serial a has stood there before"}},
		"if an earlier one comes back when due, expect it":    {[]Entry{at("a", 0), at("b", 20), at("a", 40)}, []string{"version 2: serial a has stood there before"}},
		"if the Secret is deleted, expect it, and the repeat": {[]Entry{at("a", 0), {Serial: "a", Gone: true}, at("a", 2)}, []string{"version 1: the Secret was deleted", "version 2: serial a has stood there before"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.expected, (&Ledger{entries: test.entries}).Needless())
		})
	}
}
