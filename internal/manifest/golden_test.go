package manifest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var updateGoldens = flag.Bool("update", false, "rewrite the golden files")

// TestGolden edits every testdata/NAME.in.EXT with fakeEditor and compares the results
// with the files beside it: NAME.EXT.out holds the manifests, NAME.EXT.diff the diff,
// NAME.EXT.report the decisions.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.*")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	expected := map[string]bool{}
	for _, input := range inputs {
		expected[input] = true
		base := strings.Replace(input, ".in.", ".", 1)
		t.Run(filepath.Base(base), func(t *testing.T) {
			data, err := os.ReadFile(input)
			require.NoError(t, err)
			result, err := Transform([]Source{{filepath.Base(input), data}}, "default", fakeEditor)
			require.NoError(t, err)
			var report bytes.Buffer
			for _, d := range result.Decisions {
				_, _ = fmt.Fprintf(&report, "%s: %s\n", d.Workload, d.Summary)
			}
			for ext, got := range map[string][]byte{"out": result.Text(), "diff": diff(t, result), "report": report.Bytes()} {
				name := base + "." + ext
				expected[name] = true
				if *updateGoldens {
					require.NoError(t, os.WriteFile(name, got, 0o644))
				}
				want, err := os.ReadFile(name)
				require.NoError(t, err, "run the test with -update to make the golden file")
				assert.Equal(t, string(want), string(got), name)
			}
		})
	}
	files, err := filepath.Glob("testdata/*")
	require.NoError(t, err)
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && !info.IsDir() {
			assert.True(t, expected[file], "%s is stale: no input makes it; delete it", file)
		}
	}
}
