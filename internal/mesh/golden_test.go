package mesh

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/isthmus-mesh/isthmus/patches"
)

var updateGoldens = flag.Bool("update", false, "rewrite the golden files")

// TestGolden discovers the settings of each cluster in testdata and compares them, with
// their sources and warnings, to the golden file beside it.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	expected := make(map[string]bool)
	for _, input := range inputs {
		golden := strings.TrimSuffix(input, ".yaml") + ".golden"
		expected[golden] = true
		t.Run(filepath.Base(input), func(t *testing.T) {
			client := fake.NewClientset(loadObjects(t, input)...)
			s, err := discoverSettings(t, client, "", "", patches.Mesh{})
			require.NoError(t, err)
			require.NoError(t, s.Mesh.Validate())
			got := strings.Join(s.Describe(), "\n") + "\n"
			for _, w := range s.Warnings {
				got += "warning: " + w + "\n"
			}
			if *updateGoldens {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err, "run the test with -update")
			assert.Equal(t, string(want), got)
		})
	}
	goldens, err := filepath.Glob("testdata/*.golden")
	require.NoError(t, err)
	for _, g := range goldens {
		assert.True(t, expected[g], "%s belongs to no input", g)
	}
}
