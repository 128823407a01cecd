package agentversions_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// The sources of the Istio that test/tools/pilot pins are those of the current agent: a fact
// that holds for that agent is found at the place that the table names, and a fact that
// ended is gone. An update of Istio that changes a fact fails this test.
func TestFactsHoldInTheSources(t *testing.T) {
	folder, err := istio.Module(t.Context())
	require.NoError(t, err)
	settings, needs, differences := patches.Facts()
	all := slices.Concat(settings, needs, differences)
	current, known := patches.AgentFromImage(patches.DefaultProxyImage)
	require.True(t, known)
	for _, fact := range all {
		t.Run(fact.Name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(folder, filepath.FromSlash(fact.File)))
			if !current.Supports(fact.Name) {
				assert.NotContains(t, string(text), fact.Symbol)
				return
			}
			require.NoError(t, err)
			assert.Contains(t, string(text), fact.Symbol)
		})
	}
}
