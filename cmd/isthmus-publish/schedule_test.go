package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestDelayUntilTheNextCheck(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		dueIn    time.Duration // zero: never
		random   float64
		expected time.Duration
	}{
		"if nothing is due, expect the check interval":         {0, 0, 48 * time.Second},
		"if nothing is due, expect it spread":                  {0, 1, 72 * time.Second},
		"if it is due in hours, expect the check interval":     {8 * time.Hour, 0.5, time.Minute},
		"if it is due soon, expect the first replica then":     {20 * time.Second, 0, 20 * time.Second},
		"if it is due soon, expect the last a tenth later":     {20 * time.Second, 1, 22 * time.Second},
		"if it is overdue, expect a second":                    {-time.Hour, 0, time.Second},
		"if it is due at the moment, expect no more than that": {time.Millisecond, 1, 1100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			s := schedule{checkInterval: time.Minute, random: func() float64 { return test.random }}
			var nextCheck time.Time
			if test.dueIn != 0 {
				nextCheck = now.Add(test.dueIn)
			}
			assert.Equal(t, test.expected, s.delay(nextCheck, now))
		})
	}
}

func TestBackoffDoublesUpToItsMaximum(t *testing.T) {
	s := schedule{random: func() float64 { return 0 }}
	var least, most []time.Duration
	for range 8 {
		least = append(least, s.backoff())
	}
	s = schedule{random: func() float64 { return 1 }}
	for range 8 {
		most = append(most, s.backoff())
	}
	ms := time.Millisecond
	assert.Equal(t, []time.Duration{250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 5000 * ms, 5000 * ms, 5000 * ms}, least)
	assert.Equal(t, []time.Duration{500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 8000 * ms, 10000 * ms, 10000 * ms, 10000 * ms}, most)
	s.failures = 1 << 20
	assert.Equal(t, 10*time.Second, s.backoff())
	s.resetBackoff()
	assert.Equal(t, 500*ms, s.backoff())
}
