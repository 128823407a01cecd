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
	w := start(t)
	ns := w.namespace(nil, "edge")
	_, err := w.kube.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "istio-other"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	pod := w.edge(ns, edgePod("front", "edge", nil))
	w.secret(ns, "istio-certs", anything)

	w.label(ns, "")
	// The pod still needs the Secret. That another namespace was reconciled shows
	// that the controller had the time to do something here.
	other := w.namespace(nil, "edge")
	w.edge(other, edgePod("front", "edge", nil))
	w.secret(other, "istio-certs", anything)
	w.secret(ns, "istio-certs", anything)

	w.end(pod)
	w.gone(ns, "istio-certs")
	w.secret(ns, "istio-other", anything)
	w.reachesNothing("isthmus_edge_pods", map[string]string{"namespace": ns}) // there are no series of a namespace that is not opted in
	w.secret(other, "istio-certs", anything)
}

func TestOptOutWhileNoControllerRuns(t *testing.T) {
	w := start(t)
	ns := w.namespace(nil, "edge")
	pod := w.edge(ns, edgePod("front", "edge", nil))
	w.secret(ns, "istio-certs", anything)
	w.stop()
	w.label(ns, policy.InjectionDisabled)
	w.end(pod)
	w.run()
	w.gone(ns, "istio-certs")
}

func TestLastPodGone(t *testing.T) {
	w := start(t)
	ns := w.namespace(nil, "edge")
	pod := w.edge(ns, edgePod("front", "edge", nil))
	first := w.secret(ns, "istio-certs", anything)
	w.end(pod)
	edges := map[string]string{"namespace": ns, "state": "injected"}
	w.reachesNothing("isthmus_edge_pods", edges)
	w.edge(ns, edgePod("front-again", "edge", nil))
	w.reaches("isthmus_edge_pods", edges, 1)
	assert.Equal(t, first.UID, w.secret(ns, "istio-certs", anything).UID, "it stays for the next pod")
}

func TestPublisherBinding(t *testing.T) {
	w := start(t)
	ns := w.namespace(map[string]string{policy.SourceKey: "agent"}, "edge", "other")
	pod := w.edge(ns, edgePod("front", "edge", nil))
	var binding *rbacv1.RoleBinding
	require.Eventually(t, func() bool {
		var err error
		binding, err = w.kube.RbacV1().RoleBindings(ns).Get(t.Context(), "isthmus-publisher", metav1.GetOptions{})
		return err == nil
	}, patience, tick)
	assert.Equal(t, rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "isthmus-publisher"}, binding.RoleRef)
	assert.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: "edge", Namespace: ns}}, binding.Subjects)
	assert.Zero(t, w.mesh.count(ns), "what the pod publishes, the controller does not")

	w.label(ns, "")
	w.end(pod)
	require.Eventually(t, func() bool {
		_, err := w.kube.RbacV1().RoleBindings(ns).Get(t.Context(), "isthmus-publisher", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}, patience, tick, "the right goes with the opt-in")
}
