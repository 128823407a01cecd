package controller

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestOptOut(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	_, err := env.kube.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "istio-other"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	pod := env.createEdge(ns, edgePod("front", "edge", nil))
	env.awaitSecret(ns, "istio-certs", anySecret)

	env.setLabel(ns, "")
	// The pod still needs the Secret. That another namespace was reconciled shows
	// that the controller had the time to do something here.
	other := env.createNamespace(nil, "edge")
	env.createEdge(other, edgePod("front", "edge", nil))
	env.awaitSecret(other, "istio-certs", anySecret)
	env.awaitSecret(ns, "istio-certs", anySecret)

	env.deletePod(pod)
	env.awaitNoSecret(ns, "istio-certs")
	env.awaitSecret(ns, "istio-other", anySecret)
	env.awaitNoSeries("isthmus_edge_pods", map[string]string{"namespace": ns}) // there are no series of a namespace that is not opted in
	env.awaitSecret(other, "istio-certs", anySecret)
}

// A pod that has ended needs nothing: everything is removed although the object of the
// pod is still there, as after an eviction.
func TestOptOutWithEndedPods(t *testing.T) {
	for name, phase := range map[string]corev1.PodPhase{"evicted": corev1.PodFailed, "finished": corev1.PodSucceeded} {
		end := func(env *environment, pod *corev1.Pod) {
			pod.Status.Phase, pod.Status.Reason = phase, "Evicted"
			_, err := env.kube.CoreV1().Pods(pod.Namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
			require.NoError(t, err)
		}
		t.Run(name+" after the namespace opted out", func(t *testing.T) {
			env := newEnvironment(t)
			ns := env.createNamespace(map[string]string{policy.PublishKey: "true"}, "edge")
			pod := env.createEdge(ns, edgePod("front", "edge", nil))
			env.awaitBinding(ns)
			env.setLabel(ns, "")
			end(env, pod)
			env.awaitNoBinding(ns)
		})
		t.Run(name+" while no controller ran", func(t *testing.T) {
			env := newEnvironment(t)
			ns := env.createNamespace(nil, "edge")
			pod := env.createEdge(ns, edgePod("front", "edge", nil))
			env.awaitSecret(ns, "istio-certs", anySecret)
			env.stop()
			env.setLabel(ns, "")
			end(env, pod)
			env.startController()
			env.awaitNoSecret(ns, "istio-certs")
		})
	}
}

func TestOptOutWhileNoControllerRuns(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	pod := env.createEdge(ns, edgePod("front", "edge", nil))
	env.awaitSecret(ns, "istio-certs", anySecret)
	env.stop()
	env.setLabel(ns, policy.InjectionDisabled)
	env.deletePod(pod)
	env.startController()
	env.awaitNoSecret(ns, "istio-certs")
}

func TestLastPodGone(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	pod := env.createEdge(ns, edgePod("front", "edge", nil))
	first := env.awaitSecret(ns, "istio-certs", anySecret)
	env.deletePod(pod)
	edges := map[string]string{"namespace": ns, "state": "injected"}
	env.awaitNoSeries("isthmus_edge_pods", edges)
	env.createEdge(ns, edgePod("front-again", "edge", nil))
	env.awaitMetric("isthmus_edge_pods", edges, 1)
	assert.Equal(t, first.UID, env.awaitSecret(ns, "istio-certs", anySecret).UID, "it stays for the next pod")
}

func TestPublisherBinding(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(map[string]string{policy.SourceKey: "agent"}, "edge", "other")
	pod := env.createEdge(ns, edgePod("front", "edge", nil))
	binding := env.awaitBinding(ns)
	assert.Equal(t, rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "isthmus-publisher"}, binding.RoleRef)
	assert.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: "edge", Namespace: ns}}, binding.Subjects)
	assert.Zero(t, env.mesh.issuedCount(ns), "what the pod publishes, the controller does not")

	env.setLabel(ns, "")
	env.deletePod(pod)
	env.awaitNoBinding(ns)
}

// awaitBinding waits for the RoleBinding of the publishers.
func (env *environment) awaitBinding(namespace string) (binding *rbacv1.RoleBinding) {
	env.t.Helper()
	require.Eventually(env.t, func() bool {
		var err error
		binding, err = env.kube.RbacV1().RoleBindings(namespace).Get(env.t.Context(), "isthmus-publisher", metav1.GetOptions{})
		return err == nil
	}, waitTimeout, pollInterval)
	return binding
}

// awaitNoBinding waits until there is no RoleBinding of the publishers.
func (env *environment) awaitNoBinding(namespace string) {
	env.t.Helper()
	require.Eventually(env.t, func() bool {
		_, err := env.kube.RbacV1().RoleBindings(namespace).Get(env.t.Context(), "isthmus-publisher", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}, waitTimeout, pollInterval, "the RoleBinding is still there")
}
