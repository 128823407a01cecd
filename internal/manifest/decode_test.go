package manifest

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWholeNumbers shows that JSON may write a whole number in any way, that the text
// keeps the way, and that errors are in the words of the formats and not of Go.
func TestWholeNumbers(t *testing.T) {
	pod := func(field, value string) string {
		return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[{"name":"edge","` + field + `":` + value + `}]}}`
	}
	for name, test := range map[string]struct{ field, value, want string }{
		"a port":                 {"ports", `[{"containerPort":8080.0}]`, ""},
		"an exponent":            {"ports", `[{"containerPort":8.08e3}]`, ""},
		"a number or a name":     {"readinessProbe", `{"httpGet":{"port":8877.0}}`, ""},
		"a quantity":             {"resources", `{"limits":{"cpu":1e0,"memory":1.5e2}}`, ""},
		"a fraction":             {"ports", `[{"containerPort":80.5}]`, "ports[0].containerPort: want a whole number, got a number 80.5"},
		"more than there is":     {"ports", `[{"containerPort":1e300}]`, "ports[0].containerPort: want a whole number, got a number 1e300"},
		"a port with a fraction": {"readinessProbe", `{"httpGet":{"port":80.5}}`, "readinessProbe.httpGet.port: want a whole number or a string, got a number 80.5"},
		"no quantity":            {"resources", `{"limits":{"cpu":"much"}}`, `resources.limits.cpu: want a quantity such as 100m or 1Gi, got the string "much"`},
		"a number for a string":  {"image", `1.0`, "image: want a string, got a number 1.0: quote it"},
	} {
		t.Run(name, func(t *testing.T) {
			in := pod(test.field, test.value)
			result, err := Transform([]Source{{"a", []byte(in)}}, "default", fakeEditor)
			if test.want != "" {
				assert.EqualError(t, err, "a:1: document 1 (Pod default/x): spec.containers[0]."+test.want)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "injected", result.Decisions[0].Summary)
			assert.Contains(t, string(result.Text()), test.value)
		})
	}
}

// TestErrorsAreText shows that a value is cut between characters.
func TestErrorsAreText(t *testing.T) {
	for length := range 8 {
		in := strings.Replace(edgePod, "  - name: edge\n", "  - name: edge\n    env: "+strings.Repeat("x", length)+strings.Repeat("\u20ac", 60)+"\n", 1)
		_, err := Transform([]Source{{"a", []byte(in)}}, "default", fakeEditor)
		require.Error(t, err)
		assert.True(t, utf8.ValidString(err.Error()), err.Error())
		assert.Contains(t, err.Error(), "\u20ac...")
	}
}

// TestDefaults shows that a volume without a source is an emptyDir, as on the API server.
func TestDefaults(t *testing.T) {
	var seen Workload
	transform(t, func(w Workload) Edit { seen = w; return Edit{} }, edgePod+"  volumes:\n  - name: a\n  - name: b\n    secret: {secretName: b}\n")
	require.Len(t, seen.Pod.Spec.Volumes, 2)
	assert.NotNil(t, seen.Pod.Spec.Volumes[0].EmptyDir)
	assert.Nil(t, seen.Pod.Spec.Volumes[1].EmptyDir)
}
