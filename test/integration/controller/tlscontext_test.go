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

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

var (
	crds        = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	tlsContexts = schema.GroupVersionResource{Group: "getambassador.io", Version: "v3alpha1", Resource: "tlscontexts"}
)

// createTLSContextCRD installs the CRD of TLSContext until the test ends. It has the fields
// of Emissary 3 that Isthmus writes, and stores the version that Isthmus writes, since
// Emissary's conversion webhook does not run here.
func (env *environment) createTLSContextCRD() {
	env.t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "tlscontext-crd.yaml"))
	require.NoError(env.t, err)
	crd := &unstructured.Unstructured{}
	require.NoError(env.t, yaml.Unmarshal(data, &crd.Object))
	_, err = env.dynamic.Resource(crds).Create(env.t.Context(), crd, metav1.CreateOptions{})
	require.NoError(env.t, err)
	env.t.Cleanup(func() {
		assert.NoError(env.t, env.dynamic.Resource(crds).Delete(context.Background(), crd.GetName(), metav1.DeleteOptions{}))
		require.Eventually(env.t, func() bool {
			_, err := env.dynamic.Resource(tlsContexts).List(context.Background(), metav1.ListOptions{})
			return apierrors.IsNotFound(err)
		}, waitTimeout, pollInterval)
	})
	require.Eventually(env.t, func() bool {
		_, err := env.dynamic.Resource(tlsContexts).List(env.t.Context(), metav1.ListOptions{})
		return err == nil
	}, waitTimeout, pollInterval, "the API server serves TLSContexts")
}

// awaitTLSContext waits for the TLSContext of a namespace and returns its spec as JSON.
func (env *environment) awaitTLSContext(namespace string) string {
	env.t.Helper()
	var spec []byte
	require.Eventually(env.t, func() bool {
		o, err := env.dynamic.Resource(tlsContexts).Namespace(namespace).Get(env.t.Context(), "istio-upstream", metav1.GetOptions{})
		if err != nil {
			return false
		}
		spec, err = json.Marshal(o.Object["spec"])
		return err == nil
	}, waitTimeout, pollInterval, "TLSContext of %s", namespace)
	return string(spec)
}

func TestTLSContext(t *testing.T) {
	env := newEnvironment(t)
	env.createTLSContextCRD()

	t.Run("if the edge reads files, expect a Secret with the roots", func(t *testing.T) {
		ns := env.createNamespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
		pod := edgePod("front", "edge", nil)
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AMBASSADOR_ID", Value: "public"}}
		pod = env.createEdge(ns, pod)
		assert.JSONEq(t, `{"secret":"istio-certs","secret_namespacing":false,"alpn_protocols":"istio","ca_secret":"istio-certs-roots","ambassador_id":["public"]}`, env.awaitTLSContext(ns))
		roots := env.awaitSecret(ns, "istio-certs-roots", anySecret)
		assert.Equal(t, string(env.mesh.currentSigner().CertificatePEM), string(roots.Data["tls.crt"]))
		assert.Len(t, roots.Data, 1, "no key")

		env.setLabel(ns, "")
		env.deletePod(pod)
		env.awaitNoSecret(ns, "istio-certs-roots")
		_, err := env.dynamic.Resource(tlsContexts).Namespace(ns).Get(t.Context(), "istio-upstream", metav1.GetOptions{})
		assert.True(t, apierrors.IsNotFound(err))
	})
	t.Run("if the edge reads the Secret, expect no roots", func(t *testing.T) {
		ns := env.createNamespace(map[string]string{policy.TLSContextKey: "true", policy.DeliveryKey: "secret"}, "edge")
		env.createEdge(ns, edgePod("front", "edge", nil))
		assert.JSONEq(t, `{"secret":"istio-certs","secret_namespacing":false,"alpn_protocols":"istio"}`, env.awaitTLSContext(ns))
	})
	t.Run("if another owner has created it, expect it unchanged", func(t *testing.T) {
		ns := env.createNamespace(nil, "edge")
		foreign := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"secret": "mine"}}}
		foreign.SetGroupVersionKind(tlsContexts.GroupVersion().WithKind("TLSContext"))
		foreign.SetName("istio-upstream")
		_, err := env.dynamic.Resource(tlsContexts).Namespace(ns).Create(t.Context(), foreign, metav1.CreateOptions{})
		require.NoError(t, err)
		env.annotate(ns, policy.TLSContextKey, "true")
		env.createEdge(ns, edgePod("front", "edge", nil))
		assert.Contains(t, env.awaitEvent(ns, "TLSContext", "istio-upstream", "Conflict"), "left as it is")
		assert.JSONEq(t, `{"secret":"mine"}`, env.awaitTLSContext(ns))
	})
	t.Run("if nothing asks for it any longer, expect it gone", func(t *testing.T) {
		ns := env.createNamespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
		env.createEdge(ns, edgePod("front", "edge", nil))
		env.awaitTLSContext(ns)
		env.annotate(ns, policy.TLSContextKey, "")
		require.Eventually(t, func() bool {
			_, err := env.dynamic.Resource(tlsContexts).Namespace(ns).Get(t.Context(), "istio-upstream", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}, waitTimeout, pollInterval)
	})
}

func TestTLSContextWithoutEmissary(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	assert.Contains(t, env.awaitEvent(ns, "TLSContext", "istio-upstream", "Failed"), "no tlscontexts.getambassador.io")
	env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-certs", anySecret).Data, spiffeID(ns, "edge"))
}
