package controller

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

var (
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	contexts    = schema.GroupVersionResource{Group: "getambassador.io", Version: "v3alpha1", Resource: "tlscontexts"}
)

// define brings the TLSContext kind into the cluster until the test ends: with
// the fields of Emissary 3 that matter, stored in the version that is written,
// since the webhook that converts between Emissary's versions does not run here.
func (w *world) define() {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "tlscontext-crd.yaml"))
	require.NoError(w.t, err)
	crd := &unstructured.Unstructured{}
	require.NoError(w.t, yaml.Unmarshal(data, &crd.Object))
	_, err = w.dynamic.Resource(definitions).Create(w.t.Context(), crd, metav1.CreateOptions{})
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		assert.NoError(w.t, w.dynamic.Resource(definitions).Delete(context.Background(), crd.GetName(), metav1.DeleteOptions{}))
		require.Eventually(w.t, func() bool {
			_, err := w.dynamic.Resource(contexts).List(context.Background(), metav1.ListOptions{})
			return apierrors.IsNotFound(err)
		}, patience, tick)
	})
	require.Eventually(w.t, func() bool {
		_, err := w.dynamic.Resource(contexts).List(w.t.Context(), metav1.ListOptions{})
		return err == nil
	}, patience, tick, "the API server serves TLSContexts")
}

// tlsContext waits for the TLSContext of a namespace and returns its spec as JSON.
func (w *world) tlsContext(namespace string) string {
	w.t.Helper()
	var spec []byte
	require.Eventually(w.t, func() bool {
		o, err := w.dynamic.Resource(contexts).Namespace(namespace).Get(w.t.Context(), "istio-upstream", metav1.GetOptions{})
		if err != nil {
			return false
		}
		spec, err = json.Marshal(o.Object["spec"])
		return err == nil
	}, patience, tick, "TLSContext of %s", namespace)
	return string(spec)
}

func TestTLSContext(t *testing.T) {
	w := start(t)
	w.define()

	t.Run("if the edge reads files, expect the roots beside it", func(t *testing.T) {
		ns := w.namespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
		pod := edgePod("front", "edge", nil)
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AMBASSADOR_ID", Value: "public"}}
		pod = w.edge(ns, pod)
		assert.JSONEq(t, `{"secret":"istio-certs","secret_namespacing":false,"alpn_protocols":"istio","ca_secret":"istio-certs-roots","ambassador_id":["public"]}`, w.tlsContext(ns))
		roots := w.secret(ns, "istio-certs-roots", anything)
		assert.Equal(t, string(w.mesh.pair().CertificatePEM), string(roots.Data["tls.crt"]))
		assert.Len(t, roots.Data, 1, "no key")

		w.label(ns, "")
		w.end(pod)
		w.gone(ns, "istio-certs-roots")
		_, err := w.dynamic.Resource(contexts).Namespace(ns).Get(t.Context(), "istio-upstream", metav1.GetOptions{})
		assert.True(t, apierrors.IsNotFound(err))
	})
	t.Run("if the edge reads the Secret, expect no roots", func(t *testing.T) {
		ns := w.namespace(map[string]string{policy.TLSContextKey: "true", policy.DeliveryKey: "secret"}, "edge")
		w.edge(ns, edgePod("front", "edge", nil))
		assert.JSONEq(t, `{"secret":"istio-certs","secret_namespacing":false,"alpn_protocols":"istio"}`, w.tlsContext(ns))
	})
	t.Run("if it is someone else's, expect it untouched", func(t *testing.T) {
		ns := w.namespace(nil, "edge")
		theirs := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"secret": "mine"}}}
		theirs.SetGroupVersionKind(contexts.GroupVersion().WithKind("TLSContext"))
		theirs.SetName("istio-upstream")
		_, err := w.dynamic.Resource(contexts).Namespace(ns).Create(t.Context(), theirs, metav1.CreateOptions{})
		require.NoError(t, err)
		w.annotate(ns, policy.TLSContextKey, "true")
		w.edge(ns, edgePod("front", "edge", nil))
		assert.Contains(t, w.event(ns, "TLSContext", "istio-upstream", "Conflict"), "left as it is")
		assert.JSONEq(t, `{"secret":"mine"}`, w.tlsContext(ns))
	})
	t.Run("if nothing asks for it any longer, expect it gone", func(t *testing.T) {
		ns := w.namespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
		w.edge(ns, edgePod("front", "edge", nil))
		w.tlsContext(ns)
		w.annotate(ns, policy.TLSContextKey, "")
		require.Eventually(t, func() bool {
			_, err := w.dynamic.Resource(contexts).Namespace(ns).Get(t.Context(), "istio-upstream", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}, patience, tick)
	})
}

func TestTLSContextWithoutEmissary(t *testing.T) {
	w := start(t)
	ns := w.namespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
	w.edge(ns, edgePod("front", "edge", nil))
	assert.Contains(t, w.event(ns, "TLSContext", "istio-upstream", "Failed"), "no tlscontexts.getambassador.io")
	w.mesh.holds(t, w.secret(ns, "istio-certs", anything).Data, idOf(ns, "edge"))
}

func TestWarningsAreRepeated(t *testing.T) {
	w := start(t)
	ns := w.namespace(nil, "edge")
	pod := edgePod("front", "edge", nil)
	isController := true
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "front-abc", UID: "b2", Controller: &isController}}
	w.edge(ns, pod)
	note := w.event(ns, "Pod", "front", "files-not-reloaded")
	assert.Contains(t, note, "notices a rotated file only when something else makes it reconfigure")
	assert.Equal(t, note, w.event(ns, "ReplicaSet", "front-abc", "files-not-reloaded"))
}

func TestStaleTemplate(t *testing.T) {
	w := start(t)
	ns := w.namespace(nil, "edge")
	w.edge(ns, edgePod("front", "edge", nil))
	edges := func(state string) map[string]string {
		return map[string]string{"namespace": ns, "mode": "sidecar", "state": state}
	}
	w.reaches("isthmus_edge_pods", edges("injected"), 1)
	w.stop()
	changed := settings
	changed.Mesh.ProxyImage = "docker.io/istio/proxyv2:1.99.0"
	engine, err := inject.New(inject.Options{Settings: changed})
	require.NoError(t, err)
	w.engine = engine
	w.run()
	w.reaches("isthmus_edge_pods", edges("stale"), 1)
	_, ok := w.metric("isthmus_edge_pods", edges("injected"))
	assert.False(t, ok)
}

func TestEndedPodsClaimNothing(t *testing.T) {
	w := start(t)
	ns := w.namespace(nil, "edge", "job")
	ended := w.edge(ns, edgePod("ended", "job", nil))
	w.secret(ns, "istio-certs", anything)
	ended.Status.Phase = corev1.PodSucceeded
	_, err := w.kube.CoreV1().Pods(ns).UpdateStatus(t.Context(), ended, metav1.UpdateOptions{})
	require.NoError(t, err)
	w.reachesNothing("isthmus_edge_pods", map[string]string{"namespace": ns, "state": "injected"})
	w.edge(ns, edgePod("front", "edge", map[string]string{policy.SecretNameKey: "istio-other"}))
	w.mesh.holds(t, w.secret(ns, "istio-other", anything).Data, idOf(ns, "edge"))
	w.reaches("isthmus_edge_pods", map[string]string{"namespace": ns, "state": "injected"}, 1)
}
