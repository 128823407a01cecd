package policy_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestBoundWarnings(t *testing.T) {
	text := func(n int) policy.Warning { return policy.Warning{Code: "a", Text: strings.Repeat("x", n)} }
	omitted := func(text string) policy.Warning { return policy.Warning{Code: "warnings-omitted", Text: text} }
	for name, c := range map[string]struct {
		warnings []policy.Warning
		omitted  int
		want     []policy.Warning
	}{
		"if there is none, expect none":                 {},
		"if two are equal, expect one":                  {warnings: []policy.Warning{text(9), text(8), text(9)}, want: []policy.Warning{text(9), text(8)}},
		"if one is long, expect its beginning":          {warnings: []policy.Warning{text(2000)}, want: []policy.Warning{{Code: "a", Text: strings.Repeat("x", 1021) + "..."}}},
		"if some were left out before, expect a number": {warnings: []policy.Warning{text(9)}, omitted: 7, want: []policy.Warning{text(9), omitted("7 more warnings are left out, because Kubernetes keeps 4096 characters of all warnings")}},
		"if they do not fit, expect those that do": {
			warnings: []policy.Warning{text(1001), text(1002), text(1003), text(1004), text(50)}, omitted: 1,
			want: []policy.Warning{text(1001), text(1002), text(1003), text(50), omitted("2 more warnings are left out, because Kubernetes keeps 4096 characters of all warnings")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, policy.BoundWarnings(c.warnings, c.omitted))
		})
	}
}

func TestUnknownKeysAreBounded(t *testing.T) {
	annotations := map[string]string{}
	for i := range 8000 {
		annotations[policy.Domain+strings.Repeat("x", i)] = ""
	}
	warnings, omitted := policy.UnknownKeys(nil, annotations, policy.Namespace{})
	assert.Equal(t, 8000, len(warnings)+omitted)
	assert.LessOrEqual(t, len(warnings), 32)

	warnings, _ = policy.UnknownKeys(nil, map[string]string{policy.Domain + strings.Repeat("ü", 1000): ""}, policy.Namespace{})
	assert.Len(t, warnings, 1)
	assert.True(t, strings.HasPrefix(warnings[0].Text, "annotation isthmus.dev/ü"), warnings[0].Text)
	assert.True(t, strings.HasSuffix(warnings[0].Text, "ü... (2012 bytes) is not known and has no effect; remove it"), warnings[0].Text)
	assert.True(t, utf8.ValidString(warnings[0].Text))
}

func TestClip(t *testing.T) {
	assert.Equal(t, "short", policy.Clip("short", 5))
	assert.Equal(t, "lo...", policy.Clip("longer", 5))
	assert.Equal(t, "ü...", policy.Clip("üüüü", 6), "a character is not cut in two")
}
