package controller

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
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

// awaitTLSContext waits for the TLSContext istio-upstream of a namespace for which check is
// true, and returns its spec as JSON.
func (env *environment) awaitTLSContext(namespace string, check ...func(spec string) bool) string {
	env.t.Helper()
	return env.awaitNamedTLSContext(namespace, "istio-upstream", check...)
}

// awaitNamedTLSContext waits for a TLSContext for which check is true, and returns its spec
// as JSON.
func (env *environment) awaitNamedTLSContext(namespace, name string, check ...func(spec string) bool) string {
	env.t.Helper()
	var spec []byte
	require.Eventually(env.t, func() bool {
		o, err := env.dynamic.Resource(tlsContexts).Namespace(namespace).Get(env.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false
		}
		spec, err = json.Marshal(o.Object["spec"])
		return err == nil && (len(check) == 0 || check[0](string(spec)))
	}, waitTimeout, pollInterval, "TLSContext %s/%s", namespace, name)
	return string(spec)
}

// awaitNoTLSContext waits until a TLSContext does not exist.
func (env *environment) awaitNoTLSContext(namespace, name string) {
	env.t.Helper()
	require.Eventually(env.t, func() bool { return !env.hasTLSContext(namespace, name) }, waitTimeout, pollInterval, "TLSContext %s/%s is still there", namespace, name)
}

func (env *environment) hasTLSContext(namespace, name string) bool {
	_, err := env.dynamic.Resource(tlsContexts).Namespace(namespace).Get(env.t.Context(), name, metav1.GetOptions{})
	return !apierrors.IsNotFound(err)
}

// createTLSContext creates a TLSContext as a user does.
func (env *environment) createTLSContext(namespace, name string, spec map[string]any) {
	env.t.Helper()
	foreign := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	foreign.SetGroupVersionKind(tlsContexts.GroupVersion().WithKind("TLSContext"))
	foreign.SetName(name)
	_, err := env.dynamic.Resource(tlsContexts).Namespace(namespace).Create(env.t.Context(), foreign, metav1.CreateOptions{})
	require.NoError(env.t, err)
}

func (env *environment) deleteTLSContext(namespace, name string) {
	env.t.Helper()
	require.NoError(env.t, env.dynamic.Resource(tlsContexts).Namespace(namespace).Delete(env.t.Context(), name, metav1.DeleteOptions{}))
}

// edgeWith returns an edge with these variables: names and values in turn.
func edgeWith(name, account string, annotations map[string]string, variables ...string) *corev1.Pod {
	pod := edgePod(name, account, annotations)
	for i := 0; i < len(variables); i += 2 {
		pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: variables[i], Value: variables[i+1]})
	}
	return pod
}

var requestTLSContext = map[string]string{policy.TLSContextKey: "true"}

func contains(part string) func(string) bool {
	return func(text string) bool { return strings.Contains(text, part) }
}

// Each subtest has an AMBASSADOR_ID of its own: the TLSContexts of the subtests have one
// name.
func TestTLSContext(t *testing.T) {
	env := newEnvironment(t)
	env.createTLSContextCRD()

	t.Run("if the edge reads files, expect the TLSContext, its companion and the roots", func(t *testing.T) {
		ns := env.createNamespace(requestTLSContext, "edge")
		pod := env.createEdge(ns, edgeWith("front", "edge", nil, "AMBASSADOR_ID", "public"))
		assert.JSONEq(t, `{"secret":"istio-certs","secret_namespacing":false,"alpn_protocols":"istio-http/1.1,istio","ca_secret":"istio-certs-roots","ambassador_id":["public"]}`, env.awaitTLSContext(ns))
		assert.JSONEq(t, `{"secret":"istio-certs","secret_namespacing":false,"alpn_protocols":"istio","ca_secret":"istio-certs-roots","ambassador_id":["public"]}`, env.awaitNamedTLSContext(ns, "istio-upstream-tcp"))
		roots := env.awaitSecret(ns, "istio-certs-roots", anySecret)
		assert.Equal(t, corev1.SecretTypeOpaque, roots.Type)
		root := env.mesh.currentSigner().CertificatePEM
		assert.Equal(t, map[string][]byte{"tls.crt": root, "ca.crt": root}, roots.Data)

		env.setLabel(ns, "")
		env.deletePod(pod)
		env.awaitNoSecret(ns, "istio-certs-roots")
		env.awaitNoTLSContext(ns, "istio-upstream")
		env.awaitNoTLSContext(ns, "istio-upstream-tcp")
	})
	t.Run("if the edge reads the Secret, expect the same", func(t *testing.T) {
		ns := env.createNamespace(map[string]string{policy.TLSContextKey: "true", policy.DeliveryKey: "secret"}, "edge")
		env.createEdge(ns, edgeWith("front", "edge", nil, "AMBASSADOR_ID", "reader"))
		assert.JSONEq(t, `{"secret":"istio-certs","secret_namespacing":false,"alpn_protocols":"istio-http/1.1,istio","ca_secret":"istio-certs-roots","ambassador_id":["reader"]}`, env.awaitTLSContext(ns))
		env.awaitSecret(ns, "istio-certs-roots", anySecret)
	})
	t.Run("if another owner has created it, expect it unchanged", func(t *testing.T) {
		ns := env.createNamespace(nil, "edge")
		env.createTLSContext(ns, "istio-upstream", map[string]any{"secret": "mine", "ambassador_id": []any{"mine"}})
		env.annotate(ns, policy.TLSContextKey, "true")
		env.createEdge(ns, edgeWith("front", "edge", nil, "AMBASSADOR_ID", "mine"))
		assert.Contains(t, env.awaitEvent(ns, "TLSContext", "istio-upstream", "Conflict"), "left as it is")
		assert.JSONEq(t, `{"secret":"mine","ambassador_id":["mine"]}`, env.awaitTLSContext(ns))
	})
	t.Run("if somebody deletes or changes it, expect it back", func(t *testing.T) {
		ns := env.createNamespace(requestTLSContext, "edge")
		env.createEdge(ns, edgeWith("front", "edge", nil, "AMBASSADOR_ID", "repaired"))
		want := env.awaitTLSContext(ns)
		env.deleteTLSContext(ns, "istio-upstream")
		assert.JSONEq(t, want, env.awaitTLSContext(ns))
		_, err := env.dynamic.Resource(tlsContexts).Namespace(ns).Patch(t.Context(), "istio-upstream", "application/merge-patch+json",
			[]byte(`{"metadata":{"annotations":{"team":"edge"}},"spec":{"ca_secret":"theirs"}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		env.awaitTLSContext(ns, contains(`"ca_secret":"istio-certs-roots"`))
		o, err := env.dynamic.Resource(tlsContexts).Namespace(ns).Get(t.Context(), "istio-upstream", metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"team": "edge"}, o.GetAnnotations(), "what others add stays")
	})
}

// The Secret of the roots is there for TLSContexts of the user's own too, and goes with the
// last edge that reads it.
func TestRootsWithoutATLSContext(t *testing.T) {
	for _, delivery := range []string{"files", "secret"} {
		t.Run(delivery, func(t *testing.T) {
			env := newEnvironment(t)
			ns := env.createNamespace(map[string]string{policy.DeliveryKey: delivery}, "edge")
			pod := env.createEdge(ns, edgePod("front", "edge", nil))
			env.awaitSecret(ns, "istio-certs-roots", anySecret)
			env.deletePod(pod)
			env.awaitNoSecret(ns, "istio-certs-roots")
			env.awaitSecret(ns, "istio-certs", anySecret)
		})
	}
}

// Switching the TLSContext off removes both, and leaves the roots.
func TestTLSContextIsSwitchedOff(t *testing.T) {
	env := newEnvironment(t)
	env.createTLSContextCRD()
	ns := env.createNamespace(requestTLSContext, "edge")
	pod := env.createEdge(ns, edgePod("front", "edge", nil))
	env.awaitNamedTLSContext(ns, "istio-upstream-tcp")
	roots := env.awaitSecret(ns, "istio-certs-roots", anySecret)

	env.annotate(ns, policy.DeliveryKey, "secret")
	env.createEdge(ns, edgePod("reader", "edge", nil))
	env.deletePod(pod)
	env.awaitMetric("isthmus_edge_pods", map[string]string{"namespace": ns, "state": "injected"}, 1)
	assert.True(t, env.hasTLSContext(ns, "istio-upstream"), "another delivery needs the same")

	env.annotate(ns, policy.TLSContextKey, "false")
	env.awaitNoTLSContext(ns, "istio-upstream")
	env.awaitNoTLSContext(ns, "istio-upstream-tcp")
	assert.Equal(t, roots.UID, env.awaitSecret(ns, "istio-certs-roots", anySecret).UID)
}

// The context of the chosen name is kept, and the former one removed.
func TestTLSContextOfAnotherName(t *testing.T) {
	env := newEnvironment(t)
	env.createTLSContextCRD()
	ns := env.createNamespace(map[string]string{policy.TLSContextKey: "mesh-upstream"}, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	env.awaitNamedTLSContext(ns, "mesh-upstream")
	env.awaitNamedTLSContext(ns, "mesh-upstream-tcp", contains(`"alpn_protocols":"istio"`))
	assert.False(t, env.hasTLSContext(ns, "istio-upstream"))

	env.annotate(ns, policy.TLSContextKey, "istio-upstream")
	env.awaitNamedTLSContext(ns, "istio-upstream-tcp")
	env.awaitNoTLSContext(ns, "mesh-upstream")
	env.awaitNoTLSContext(ns, "mesh-upstream-tcp")

	env.annotate(ns, policy.TLSContextKey, "not-allowed")
	other := env.createNamespace(nil, "edge")
	env.createEdge(other, edgePod("front", "edge", nil))
	env.awaitSecret(other, "istio-certs", anySecret) // the controller had the time to do something
	assert.True(t, env.hasTLSContext(ns, "istio-upstream"), "an invalid name changes nothing")
}

// The TLSContext addresses the edges that hold its Secret, and no others.
func TestAmbassadorIDs(t *testing.T) {
	env := newEnvironment(t)
	env.createTLSContextCRD()
	t.Run("if one of two edges has an ID, expect both IDs", func(*testing.T) {
		ns := env.createNamespace(requestTLSContext, "edge")
		env.createEdge(ns, edgePod("edge-1", "edge", nil))
		env.createEdge(ns, edgeWith("edge-2", "edge", nil, "AMBASSADOR_ID", "two"))
		env.awaitTLSContext(ns, contains(`"ambassador_id":["default","two"]`))
	})
	t.Run("if the other edge has another Secret, expect an Event and no ID of it", func(t *testing.T) {
		ns := env.createNamespace(requestTLSContext, "one", "two")
		env.createEdge(ns, edgeWith("edge-1", "one", nil, "AMBASSADOR_ID", "a"))
		env.createEdge(ns, edgeWith("edge-2", "two", map[string]string{policy.SecretNameKey: "istio-other"}, "AMBASSADOR_ID", "b"))
		env.awaitSecret(ns, "istio-other", anySecret)
		assert.Contains(t, env.awaitEvent(ns, "Pod", "edge-2", "TLSContextNotForEdge"), `this edge (AMBASSADOR_ID "b") holds another`)
		env.awaitTLSContext(ns, contains(`"ambassador_id":["a"]`))
	})
	t.Run("if the ID is a label of the pod, expect it", func(*testing.T) {
		ns := env.createNamespace(requestTLSContext, "edge")
		pod := edgePod("edge-1", "edge", nil)
		pod.Labels = map[string]string{"id": "labelled"}
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AMBASSADOR_ID", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['id']"}}}}
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "helper", Image: "registry.example/helper:1", Env: []corev1.EnvVar{{Name: "AMBASSADOR_ID", Value: "helper"}}})
		env.createEdge(ns, pod)
		env.awaitTLSContext(ns, contains(`"ambassador_id":["labelled"]`))
	})
	t.Run("if the ID is in a ConfigMap, expect an Event", func(t *testing.T) {
		ns := env.createNamespace(requestTLSContext, "edge")
		pod := edgePod("edge-1", "edge", nil)
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AMBASSADOR_ID", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "id"}}}}
		env.createEdge(ns, pod)
		assert.Contains(t, env.awaitEvent(ns, "Pod", "edge-1", "AmbassadorIDUnknown"), "AMBASSADOR_ID comes from key id of ConfigMap settings")
		assert.False(t, env.hasTLSContext(ns, "istio-upstream"), "it would be for other edges")
	})
}

// Emissary knows a TLSContext by its name alone, so two namespaces get two of one name only
// where no edge sees both.
func TestClashingTLSContexts(t *testing.T) {
	env := newEnvironment(t)
	env.createTLSContextCRD()
	// pair creates two namespaces with an edge each, the second after the first has its
	// TLSContext. The names of namespaces sort by the order of their creation.
	pair := func(first, second []string) (one, two string, pods [2]*corev1.Pod) {
		one = env.createNamespace(requestTLSContext, "edge")
		two = env.createNamespace(requestTLSContext, "edge")
		pods[0] = env.createEdge(one, edgeWith("front", "edge", nil, first...))
		env.awaitNamedTLSContext(one, "istio-upstream-tcp")
		pods[1] = env.createEdge(two, edgeWith("front", "edge", nil, second...))
		env.awaitSecret(two, "istio-certs-roots", anySecret)
		return one, two, pods
	}
	assertClash := func(t *testing.T, one, two, id string) {
		t.Helper()
		for _, namespace := range []string{one, two} {
			note := env.awaitEvent(namespace, "Namespace", namespace, "TLSContextClash")
			for _, part := range []string{one + "/istio-upstream", two + "/istio-upstream", id, "isthmus.dev/tls-context"} {
				assert.Contains(t, note, part)
			}
		}
	}
	t.Run("if two share an ID, expect one until the first goes", func(t *testing.T) {
		one, two, pods := pair([]string{"AMBASSADOR_ID", "shared"}, []string{"AMBASSADOR_ID", "shared"})
		assertClash(t, one, two, "shared")
		assert.False(t, env.hasTLSContext(two, "istio-upstream"))
		assert.False(t, env.hasTLSContext(two, "istio-upstream-tcp"))
		env.deletePod(pods[0])
		env.awaitNoTLSContext(one, "istio-upstream")
		env.awaitNamedTLSContext(two, "istio-upstream-tcp")
	})
	t.Run("if one of two IDs is shared, expect one", func(t *testing.T) {
		ns := env.createNamespace(requestTLSContext, "edge")
		env.createEdge(ns, edgeWith("front", "edge", nil, "AMBASSADOR_ID", "half"))
		env.awaitTLSContext(ns)
		other := env.createNamespace(requestTLSContext, "edge")
		env.createEdge(other, edgeWith("front", "edge", nil, "AMBASSADOR_ID", "half"))
		env.createEdge(other, edgeWith("back", "edge", nil, "AMBASSADOR_ID", "whole"))
		assertClash(t, ns, other, "half")
		assert.False(t, env.hasTLSContext(other, "istio-upstream"))
	})
	t.Run("if the IDs are disjoint, expect both", func(*testing.T) {
		_, two, _ := pair([]string{"AMBASSADOR_ID", "left"}, []string{"AMBASSADOR_ID", "right"})
		env.awaitNamedTLSContext(two, "istio-upstream-tcp")
	})
	t.Run("if the later edge sees its own namespace alone, expect both", func(*testing.T) {
		_, two, _ := pair([]string{"AMBASSADOR_ID", "alone"}, []string{"AMBASSADOR_ID", "alone", "AMBASSADOR_SINGLE_NAMESPACE", "yes"})
		env.awaitNamedTLSContext(two, "istio-upstream-tcp")
	})
	t.Run("if one was made by hand in a third namespace, expect it alone until it goes", func(t *testing.T) {
		third := env.createNamespace(nil)
		env.createTLSContext(third, "istio-upstream", map[string]any{"secret": "mine", "ambassador_id": []any{"third"}})
		ns := env.createNamespace(requestTLSContext, "edge")
		env.createEdge(ns, edgeWith("front", "edge", nil, "AMBASSADOR_ID", "third"))
		assertClash(t, third, ns, "third")
		assert.False(t, env.hasTLSContext(ns, "istio-upstream"))
		env.deleteTLSContext(third, "istio-upstream")
		env.awaitTLSContext(ns)
	})
	t.Run("if both are there already, expect the one that Emissary uses", func(t *testing.T) {
		one, two, _ := pair([]string{"AMBASSADOR_ID", "upgraded"}, []string{"AMBASSADOR_ID", "upgraded-too"})
		env.awaitNamedTLSContext(two, "istio-upstream-tcp")
		// As an earlier version left it, which looked at one namespace alone.
		env.stop()
		for _, name := range []string{"istio-upstream", "istio-upstream-tcp"} {
			_, err := env.dynamic.Resource(tlsContexts).Namespace(two).Patch(t.Context(), name, "application/merge-patch+json", []byte(`{"spec":{"ambassador_id":["upgraded"]}}`), metav1.PatchOptions{})
			require.NoError(t, err)
		}
		require.NoError(t, env.kube.CoreV1().Pods(two).Delete(t.Context(), "front", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
		env.createEdge(two, edgeWith("again", "edge", nil, "AMBASSADOR_ID", "upgraded"))
		env.startController()
		env.awaitNoTLSContext(two, "istio-upstream")
		env.awaitNoTLSContext(two, "istio-upstream-tcp")
		assertClash(t, one, two, "upgraded")
		assert.True(t, env.hasTLSContext(one, "istio-upstream"))
	})
}

// An Emissary that is installed later gets its TLSContext then.
func TestTLSContextAfterEmissaryIsInstalled(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(requestTLSContext, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	env.awaitEvent(ns, "TLSContext", "istio-upstream", "Failed")
	env.createTLSContextCRD()
	env.awaitTLSContext(ns)
}

func TestTLSContextWithoutEmissary(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	assert.Contains(t, env.awaitEvent(ns, "TLSContext", "istio-upstream", "Failed"), "no tlscontexts.getambassador.io")
	env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-certs", anySecret).Data, spiffeID(ns, "edge"))
}
