package webhook_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/webhook"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// edgePod returns an Emissary pod as the API server sends it, of 4 KB or 10 KB.
func edgePod(t testing.TB, size string) *corev1.Pod {
	t.Helper()
	file := map[string]string{"4KB": "testdata/emissary-4k.json", "10KB": "testdata/emissary-10k.json"}[size]
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	pod := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(data, pod))
	return pod
}

// reviewOf returns the review that the API server sends for the pod.
func reviewOf(t testing.TB, pod *corev1.Pod) []byte {
	t.Helper()
	raw, err := json.Marshal(pod)
	require.NoError(t, err)
	return reviewOfRaw(t, raw)
}

func reviewOfRaw(t testing.TB, raw []byte) []byte {
	t.Helper()
	resource := metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
	kind := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
	data, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID:  "705ab4f5-6393-11e8-b7cc-42010a800002",
			Kind: kind, Resource: resource, RequestKind: &kind, RequestResource: &resource,
			Namespace: "emissary", Operation: admissionv1.Create,
			Object: runtime.RawExtension{Raw: raw},
		},
	})
	require.NoError(t, err)
	return data
}

// fixedNamespaces returns the same labels and annotations for every namespace.
type fixedNamespaces struct {
	namespace policy.Namespace
	err       error
}

func (f fixedNamespaces) Namespace(_ context.Context, name string, _ bool) (policy.Namespace, error) {
	f.namespace.Name = name
	return f.namespace, f.err
}

func labelledNamespaces() fixedNamespaces {
	return fixedNamespaces{namespace: policy.Namespace{Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}}
}

func newHandler(t testing.TB, m *webhook.Metrics, log logr.Logger) *webhook.Handler {
	t.Helper()
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	return &webhook.Handler{Engine: engine, Namespaces: labelledNamespaces(), Memory: webhook.NewMemoryBudget(), Metrics: m, Log: log, Labelled: true}
}
