package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// emissaryCRDs is the path of Emissary's CRDs, which the maintainers keep beside their
// checkout.
const emissaryCRDs = root + "/../shared/data/emissary-crds.yaml"

const tracingValues = `
integrations:
  tracing:
    enabled: true
    namespaces: [emissary, edge-stack]
    sampling: {overall: 10}
    config: {trace_id_128bit: true, collector_endpoint_version: HTTP_JSON}
    ambassadorID: [front]
`

// operatorCRDs returns the paths of the CRDs of the Prometheus operator.
func operatorCRDs(ctx context.Context) ([]string, error) {
	const module = "github.com/prometheus-operator/prometheus-operator"
	folder, err := moduleFolder(ctx, "prometheus-operator", module)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, kind := range []string{"podmonitors", "prometheusrules", "servicemonitors"} {
		paths = append(paths, filepath.Join(folder, "example", "prometheus-operator-crd", "monitoring.coreos.com_"+kind+".yaml"))
	}
	return paths, nil
}

// moduleFolder returns the folder in which the go command keeps a module that a folder of
// test/tools requires.
func moduleFolder(ctx context.Context, folder, module string) (string, error) {
	out, err := run(ctx, "", "go", "-C", filepath.Join(root, "test", "tools", folder), "mod", "download", "-json", module)
	if err != nil {
		return "", fmt.Errorf("find the module %s: %w", module, err)
	}
	var found struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		return "", err
	}
	if found.Dir == "" {
		return "", errors.New("the go command names no folder of " + module)
	}
	return found.Dir, nil
}

// testObjectsAreAccepted has the API server validate, by the real CRDs, what the chart
// renders with everything enabled; it refuses a field that a CRD does not know.
func testObjectsAreAccepted(t *testing.T, env *environment) {
	t.Run("objects of the Prometheus operator", func(t *testing.T) {
		for name, port := range map[string]string{"a port number": "8877", "a port name": "admin"} {
			t.Run(name, func(t *testing.T) {
				list := render(t, `
metrics: {serviceMonitor: {enabled: true, labels: {release: prometheus}}}
integrations:
  edgeMetrics: {namespaces: [emissary], port: `+port+`, podMonitor: {enabled: true, labels: {release: prometheus}}}
  alerts: {prometheusRule: {enabled: true, labels: {release: prometheus}}}
`)
				for kind, names := range map[string][]string{
					"PodMonitor": {"isthmus-edge"}, "PrometheusRule": {"isthmus"}, "ServiceMonitor": {"isthmus-webhook", "isthmus-controller"},
				} {
					for _, name := range names {
						object := find(t, list, kind, name)
						assert.Equal(t, "prometheus", object.GetLabels()["release"], name)
						assert.NoError(t, env.apply(t.Context(), []*unstructured.Unstructured{object}, "--dry-run=server"))
					}
				}
			})
		}
	})
	t.Run("the TracingService of Emissary", func(t *testing.T) {
		if _, err := os.Stat(emissaryCRDs); errors.Is(err, os.ErrNotExist) {
			t.Skip("Emissary's CRDs are missing (../shared/data/emissary-crds.yaml beside the checkout): TestTracingServiceHasTheFields compares the names of the fields")
		}
		crd := tracingCRD(t)
		require.NoError(t, env.apply(t.Context(), []*unstructured.Unstructured{crd}))
		_, err := env.kubectl(t.Context(), "wait", "--for=condition=Established", "--timeout=30s", "crd/"+crd.GetName())
		require.NoError(t, err)
		list := filterByKind(render(t, tracingValues), "TracingService")
		require.Len(t, list, 2)
		for _, object := range list {
			env.createNamespace(t, object.GetNamespace(), nil)
		}
		require.NoError(t, env.apply(t.Context(), list))
		out, err := env.kubectl(t.Context(), "-n", "edge-stack", "get", "tracingservices", "tracing", "-o", "json")
		require.NoError(t, err)
		var stored unstructured.Unstructured
		require.NoError(t, stored.UnmarshalJSON([]byte(out)))
		assert.Equal(t, list[0].Object["spec"], stored.Object["spec"], "no field was dropped")
	})
}

// tracingCRD returns Emissary's CRD with the one version that the chart writes. Emissary's
// server converts the older versions, which no current API server accepts as they are.
func tracingCRD(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	content, err := os.ReadFile(emissaryCRDs)
	require.NoError(t, err)
	crd := find(t, parse(t, string(content)), "CustomResourceDefinition", "tracingservices.getambassador.io")
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	require.NoError(t, err)
	for _, one := range versions {
		version, ok := one.(map[string]any)
		require.True(t, ok)
		if version["name"] == "v3alpha1" {
			version["storage"] = true
			require.NoError(t, unstructured.SetNestedSlice(crd.Object, []any{version}, "spec", "versions"))
		}
	}
	unstructured.RemoveNestedField(crd.Object, "spec", "conversion")
	return crd
}

func filterByKind(list []*unstructured.Unstructured, kind string) []*unstructured.Unstructured {
	var found []*unstructured.Unstructured
	for _, object := range list {
		if object.GetKind() == kind {
			found = append(found, object)
		}
	}
	return found
}

// The expected field names are those of getambassador.io/v3alpha1.
func TestTracingServiceHasTheFields(t *testing.T) {
	list := filterByKind(render(t, tracingValues), "TracingService")
	require.Len(t, list, 2)
	for i, namespace := range []string{"emissary", "edge-stack"} {
		assert.Equal(t, namespace, list[i].GetNamespace())
		assert.Equal(t, "tracing", list[i].GetName())
		assert.Equal(t, "getambassador.io/v3alpha1", list[i].GetAPIVersion())
		assert.Equal(t, map[string]any{
			"ambassador_id": []any{"front"},
			"service":       "zipkin.istio-system:9411",
			"driver":        "zipkin",
			"tag_headers":   []any{":authority", ":path"},
			"sampling":      map[string]any{"overall": int64(10)},
			"config":        map[string]any{"trace_id_128bit": true, "collector_endpoint_version": "HTTP_JSON"},
		}, list[i].Object["spec"])
	}
	guides := filterByKind(render(t, "integrations: {tracing: {enabled: true, namespaces: [ambassador]}}"), "TracingService")
	require.Len(t, guides, 1)
	assert.Equal(t, map[string]any{
		"service": "zipkin.istio-system:9411", "driver": "zipkin", "tag_headers": []any{":authority", ":path"},
	}, guides[0].Object["spec"], "the object of the guide")
}

// Each integration has a value of its own, and all of them are off by default.
func TestIntegrationsAreOffByDefault(t *testing.T) {
	for _, object := range render(t, "") {
		group, _, _ := strings.Cut(object.GetAPIVersion(), "/")
		assert.NotContains(t, []string{"monitoring.coreos.com", "getambassador.io"}, group, object.GetName())
		assert.NotContains(t, object.GetAnnotations(), "prometheus.io/scrape", object.GetName())
		assert.NotContains(t, object.GetLabels(), "grafana_dashboard", object.GetName())
		assert.NotEqual(t, "isthmus-alerts", object.GetName())
	}
}
