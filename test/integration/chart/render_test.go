package chart

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
)

// releases are names and namespaces that Helm accepts and that are difficult for a chart:
// the longest ones, digits first, dots, the chart's own name, Istio's namespace.
func releases() map[string][2]string {
	return map[string][2]string{
		"our own name":               {"isthmus", "isthmus-system"},
		"last in the alphabet":       {"zzz", "zzz"},
		"first in the alphabet":      {"a", "a"},
		"the longest names":          {strings.Repeat("r", 53), strings.Repeat("n", 63)},
		"digits first":               {"1st", "1st"},
		"only digits":                {"42", "42"},
		"a boolean in YAML":          {"true", "null"},
		"a dot":                      {"edge.front", "edge-front"},
		"the default namespace":      {"isthmus", "default"},
		"Istio's namespace":          {"istio-isthmus", "istio-system"},
		"the excluded namespace":     {"isthmus", "kube-system"},
		"a release like the webhook": {"isthmus-webhook", "isthmus-webhook"},
	}
}

// everyOption enables everything that is optional.
const everyOption = `
certificate: {mode: cert-manager}
metrics: {serviceMonitor: {enabled: true}, scrapeAnnotations: true}
integrations:
  tracing: {enabled: true, namespaces: [emissary, default]}
  edgeMetrics: {namespaces: [emissary, default], podMonitor: {enabled: true}, scrapeAnnotations: true}
  alerts: {prometheusRule: {enabled: true}, configMap: {enabled: true}}
  grafana: {enabled: true}
networkPolicy: {egress: [{}], controllerEgress: [{}], metricsFrom: [{podSelector: {}}]}
controller: {certManager: {issuerRef: {name: mesh-ca}}, mirrorSecretNames: [istio.default]}
secretNames: [istio-certs, front-certs]
profiles: {kong: {description: A gateway., onlyNamed: true}, apisix: {description: Another., onlyNamed: true}}
podLabels: {b: "1", a: "2"}
podAnnotations: {b: "1", a: "2"}
mesh: {rootClusterTrustBundle: "istio.io:istiod-ca:root-cert", trustDomain: example.org, network: east, meshID: mesh1, clusterID: "1"}
webhook: {excludedNamespaces: [z, a, z], annotations: {b: "1", a: "2"}}
`

func TestRendersTheSameTwice(t *testing.T) {
	for name, release := range releases() {
		t.Run(name, func(t *testing.T) {
			for _, values := range []string{"", everyOption} {
				first, err := renderChart(t, release[0], release[1], values)
				require.NoError(t, err)
				second, err := renderChart(t, release[0], release[1], values)
				require.NoError(t, err)
				assert.Equal(t, first, second)
				assert.NotContains(t, first, "caBundle:")
				assert.NotContains(t, first, "PRIVATE KEY")
			}
		})
	}
}

func TestConfigurationRunsRightBeforeIstio(t *testing.T) {
	// Names of Istio's own configurations, by revision and namespace.
	istio := []string{
		"istio-sidecar-injector", "istio-revision-tag-default", "istio-sidecar-injector-1-31-istio-system", "istio-",
	}
	for name, release := range releases() {
		t.Run(name, func(t *testing.T) {
			var found []string
			for _, object := range renderObjects(t, release[0], release[1], "") {
				if object.GetKind() == "MutatingWebhookConfiguration" {
					found = append(found, object.GetName())
				}
			}
			require.Len(t, found, 1)
			assert.True(t, strings.HasPrefix(found[0], "isthmus-"), found[0])
			for _, other := range istio {
				assert.Less(t, found[0], other)
			}
		})
	}
}

// A cluster can have one release: all releases have the same cluster-scoped names, so Helm
// refuses the second one.
func TestClusterScopedNamesAreShared(t *testing.T) {
	withoutNamespace := func(list []*unstructured.Unstructured) sets.Set[string] {
		names := sets.New[string]()
		for _, object := range list {
			if object.GetNamespace() == "" {
				names.Insert(object.GetKind() + " " + object.GetName())
			}
		}
		return names
	}
	want := sets.New(
		"ClusterRole isthmus-webhook", "ClusterRoleBinding isthmus-webhook", "MutatingWebhookConfiguration isthmus-injector",
		"ValidatingWebhookConfiguration isthmus-injector",
		"ClusterRole isthmus-controller", "ClusterRoleBinding isthmus-controller", "ClusterRole isthmus-publisher",
		"ClusterRole isthmus-mesh-reader", "ClusterRoleBinding isthmus-mesh-reader",
	)
	for _, policy := range []string{"isthmus-controller-tokens", "isthmus-secrets", "isthmus-controller-objects", "isthmus-controller-webhooks"} {
		want.Insert("ValidatingAdmissionPolicy "+policy, "ValidatingAdmissionPolicyBinding "+policy)
	}
	for name, release := range releases() {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, want, withoutNamespace(renderObjects(t, release[0], release[1], "")))
		})
	}
}

func TestNamesAndLabelsAreValid(t *testing.T) {
	for name, release := range releases() {
		t.Run(name, func(t *testing.T) {
			for _, object := range renderObjects(t, release[0], release[1], everyOption) {
				assert.Empty(t, validation.IsDNS1035Label(object.GetName()), object.GetName())
				for key, value := range object.GetLabels() {
					assert.Empty(t, validation.IsValidLabelValue(value), "label %s of %s %s", key, object.GetKind(), object.GetName())
				}
				assert.Equal(t, release[0], object.GetLabels()["app.kubernetes.io/instance"])
			}
		})
	}
}

// clusterScoped are the kinds of the chart that have no namespace.
var clusterScoped = sets.New("ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
	"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")

// Every namespaced object names its namespace. Otherwise kubectl would apply the output of
// helm template to the current namespace.
func TestNamespacesAreWrittenOut(t *testing.T) {
	want := sets.New("", "mesh-tools", "istio-system", "default", "emissary")
	for _, object := range renderObjects(t, "front", "mesh-tools", everyOption) {
		assert.True(t, want.Has(object.GetNamespace()), "%s %s", object.GetKind(), object.GetName())
		if !clusterScoped.Has(object.GetKind()) {
			assert.NotEmpty(t, object.GetNamespace(), "%s %s", object.GetKind(), object.GetName())
		}
	}
}

// A Secret with data, even empty data, would delete the CA at every upgrade.
func TestSecretHasNoData(t *testing.T) {
	secret := findObject[corev1.Secret](t, renderObjects(t, "front", "mesh-tools", ""), "Secret", "isthmus-webhook-ca")
	assert.Nil(t, secret.Data)
	assert.Nil(t, secret.StringData)
	assert.Equal(t, corev1.SecretTypeOpaque, secret.Type)
}
