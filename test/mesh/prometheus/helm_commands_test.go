package prometheus

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/sets"
)

// shellBlocks returns the commands of a page, block by block.
func shellBlocks(t *testing.T, page string) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "docs", page))
	require.NoError(t, err)
	var found []string
	for _, match := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(content), -1) {
		found = append(found, match[1])
	}
	return found
}

// Every helm command of the page renders the objects that the page names, in addition to
// what the chart renders anyway.
func TestHelmCommandsOfTheObservabilityPageRenderWhatItSays(t *testing.T) {
	kinds := func(manifests string) sets.Set[string] {
		found := sets.New[string]()
		for _, object := range parse(t, manifests) {
			found.Insert(object.GetKind() + " " + object.GetNamespace() + "/" + object.GetName())
		}
		return found
	}
	base, err := run(t.Context(), "", helm, "template", "isthmus", chart, "--no-hooks", "--namespace", releaseNamespace, "--kube-version", "1.36.0")
	require.NoError(t, err)
	var added []string
	for _, block := range shellBlocks(t, "observability.md") {
		command, isHelm := strings.CutPrefix(block, "helm upgrade isthmus charts/isthmus --namespace isthmus-system --reset-then-reuse-values ")
		if !isHelm {
			assert.NotContains(t, block, "helm ", "an unknown form of the command")
			continue
		}
		line := strings.Join(strings.Fields(strings.ReplaceAll(command, "\\\n", " ")), " ")
		rendered, err := run(t.Context(), `"$HELM" template isthmus `+chart+` --no-hooks --namespace isthmus-system --kube-version 1.36.0 `+line,
			"env", "HELM="+helm, "sh", "-e", "-s")
		require.NoError(t, err, block)
		more := kinds(rendered).Difference(kinds(base))
		annotated := strings.Count(rendered, "prometheus.io/scrape") > 0
		assert.True(t, more.Len() > 0 || annotated, "the command changes nothing: %s", block)
		added = append(added, sets.List(more)...)
	}
	for _, want := range []string{
		"TracingService emissary/tracing",
		"PodMonitor isthmus-system/isthmus-edge", "ServiceMonitor isthmus-system/isthmus-webhook", "PrometheusRule isthmus-system/isthmus",
		"Service emissary/isthmus-edge-sidecar", "ConfigMap isthmus-system/isthmus-alerts",
		"ConfigMap isthmus-system/isthmus-dashboard-isthmus", "ConfigMap isthmus-system/isthmus-dashboard-edge-and-mesh",
	} {
		assert.Contains(t, added, want)
	}
}
