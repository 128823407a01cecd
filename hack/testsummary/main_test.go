package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSummary(t *testing.T) {
	for name, test := range map[string]struct {
		in, want string
		passed   bool
	}{
		"if all tests pass, expect their packages and the count": {
			in: `kubernetes: 10s, 12 packages compiled
{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"noise\n"}
{"Action":"pass","Package":"a","Test":"TestOne"}
{"Action":"pass","Package":"a","Test":"TestOne/case"}
{"Action":"output","Package":"a","Output":"PASS\n"}
{"Action":"output","Package":"a","Output":"ok  \ta\t0.1s\n"}
{"Action":"pass","Package":"a"}
`,
			want:   "kubernetes: 10s, 12 packages compiled\nok  \ta\t0.1s\n2 passed, 0 failed\n",
			passed: true,
		},
		"if a test fails, expect its output": {
			in: `{"Action":"output","Package":"a","Test":"TestOne","Output":"want 1, got 2\n"}
{"Action":"fail","Package":"a","Test":"TestOne"}
{"Action":"output","Package":"a","Output":"FAIL\ta\t0.1s\n"}
{"Action":"fail","Package":"a"}
`,
			want: "want 1, got 2\nFAIL\ta\t0.1s\n0 passed, 1 failed\n",
		},
		"if a package does not compile, expect it to count as failed": {
			in: `{"Action":"pass","Package":"a","Test":"TestOne"}
{"ImportPath":"b","Action":"build-output","Output":"b.go:1: undefined: x\n"}
{"ImportPath":"b","Action":"build-fail"}
{"Action":"output","Package":"b","Output":"FAIL\tb [build failed]\n"}
{"Action":"fail","Package":"b","FailedBuild":"b"}
`,
			want: "b.go:1: undefined: x\nFAIL\tb [build failed]\n1 passed, 1 failed\n",
		},
		"if tests are skipped, expect their count": {
			in: `{"Action":"pass","Package":"a","Test":"TestOne"}
{"Action":"skip","Package":"a","Test":"TestTwo"}
`,
			want:   "1 skipped\n1 passed, 0 failed\n",
			passed: true,
		},
		"if a package's logs are wanted, expect those of passed tests": {
			in: `{"Action":"output","Package":"x/soak","Test":"TestOne","Output":"=== RUN   TestOne\n"}
{"Action":"output","Package":"x/soak","Test":"TestOne","Output":"    a_test.go:7: 5 calls\n"}
{"Action":"output","Package":"x/soak","Test":"TestOne","Output":"--- PASS: TestOne (1.00s)\n"}
{"Action":"pass","Package":"x/soak","Test":"TestOne"}
{"Action":"output","Package":"a","Test":"TestTwo","Output":"    a_test.go:9: 6 calls\n"}
{"Action":"pass","Package":"a","Test":"TestTwo"}
`,
			want:   "TestOne: a_test.go:7: 5 calls\n2 passed, 0 failed\n",
			passed: true,
		},
		"if no test ran, expect failure": {in: "nothing to do\n", want: "nothing to do\n0 passed, 0 failed\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			s := summary{out: &out, logs: regexp.MustCompile("/soak"), outputs: map[testKey][]string{}, failures: map[string]int{}}
			require.NoError(t, s.read(strings.NewReader(test.in)))
			passed := s.finish()
			assert.Equal(t, test.want, out.String())
			assert.Equal(t, test.passed, passed)
		})
	}
}
