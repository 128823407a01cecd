package webhook_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/isthmus-mesh/isthmus/webhook"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// reader returns a client with the namespace edge, if there are labels.
func reader(t *testing.T, labels ...map[string]string) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, metav1.AddMetaToScheme(scheme))
	b := fake.NewClientBuilder().WithScheme(scheme)
	for _, l := range labels {
		ns := webhook.NamespaceMetadata()
		ns.Name, ns.Labels = "edge", l
		b = b.WithObjects(ns)
	}
	return b.Build()
}

func TestClusterNamespacesReadsTheCacheFirst(t *testing.T) {
	enabled := map[string]string{policy.InjectionLabel: policy.InjectionEnabled}
	for name, c := range map[string]struct {
		cache, live client.WithWatch
		labelled    bool
		want        string
		wantErr     string
	}{
		"the cache is current":                  {cache: reader(t, enabled), live: reader(t), labelled: true, want: "enabled"},
		"the cache has no label, none expected": {cache: reader(t, map[string]string{}), live: reader(t, enabled), want: ""},
		"the label is newer than the cache":     {cache: reader(t, map[string]string{}), live: reader(t, enabled), labelled: true, want: "enabled"},
		"the namespace is newer than the cache": {cache: reader(t), live: reader(t, enabled), want: "enabled"},
		"the namespace does not exist":          {cache: reader(t), live: reader(t), wantErr: "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			n := &webhook.ClusterNamespaces{Cache: c.cache, Live: c.live}
			got, err := n.Namespace(t.Context(), "edge", c.labelled)
			if c.wantErr != "" {
				assert.ErrorContains(t, err, c.wantErr)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "edge", got.Name)
			assert.Equal(t, c.want, got.Labels[policy.InjectionLabel])
		})
	}
}

func TestClusterNamespacesReturnsAnErrorOfTheCache(t *testing.T) {
	broken := interceptor.NewClient(reader(t), interceptor.Funcs{Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
		return errors.New("cache is not started")
	}})
	n := &webhook.ClusterNamespaces{Cache: broken, Live: reader(t)}
	_, err := n.Namespace(t.Context(), "edge", false)
	assert.EqualError(t, err, "cache is not started")
}

func TestTrimNamespaceDropsWhatDecisionsDoNotRead(t *testing.T) {
	ns := webhook.NamespaceMetadata()
	ns.Labels = map[string]string{"team": "edge"}
	ns.Annotations = map[string]string{policy.ModeKey: "sidecar", policy.OpenShiftUIDRangeKey: "1/2", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
	ns.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	got, err := webhook.TrimNamespace(ns)
	require.NoError(t, err)
	trimmed, ok := got.(*metav1.PartialObjectMetadata)
	require.True(t, ok)
	assert.Equal(t, map[string]string{policy.ModeKey: "sidecar", policy.OpenShiftUIDRangeKey: "1/2"}, trimmed.Annotations)
	assert.Equal(t, map[string]string{"team": "edge"}, trimmed.Labels)
	assert.Empty(t, trimmed.ManagedFields)
	_, err = webhook.TrimNamespace("x")
	assert.EqualError(t, err, "trim namespace: got string")
}
