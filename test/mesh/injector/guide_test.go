package injector

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// row matches a row of the guide's table of fields.
var row = regexp.MustCompile("(?m)^\\| `((?:metadata|spec)\\.[^`]+)` \\| (.+) \\|$")

// The guide for Edge Stack explains every field in which the pod differs from the one that
// the vendors' values produce, after both injectors in both cases.
func TestGuideOfEdgeStackExplainsEveryDifference(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "guides", "edge-stack.md"))
	require.NoError(t, err)
	explained := map[string]string{}
	for _, match := range row.FindAllStringSubmatch(string(text), -1) {
		explained[match[1]] = match[2]
	}
	manual := newNamespace(t, istioInjectionEnabled, nil)
	want, err := manual.create(modified(edgeStack(), integrateManually))
	require.NoError(t, err)
	ns := newNamespace(t, injectionEnabled, keyValues{"isthmus.dev/mode": "istio"})
	got, err := ns.create(modified(edgeStack(), vendorAnnotations))
	require.NoError(t, err)
	require.NoError(t, wantProxies(1)(got))

	assert.Equal(t, differences(t, want, got), explained)
}
