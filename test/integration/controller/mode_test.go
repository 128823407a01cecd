package controller

import (
	"testing"

	"github.com/stretchr/testify/assert"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestSecretOfAnEdgeInModeIstio: who runs the agent makes no difference to the
// Secret.
func TestSecretOfAnEdgeInModeIstio(t *testing.T) {
	w := start(t)
	ns := w.namespace(map[string]string{policy.ModeKey: "istio"}, "edge")
	w.edge(ns, edgePod("front", "edge", nil))
	w.mesh.holds(t, w.secret(ns, "istio-certs", anything).Data, idOf(ns, "edge"))
	w.reaches("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "istio", "state": "injected"}, 1)
}

// TestNoSecretInModeAmbient: ztunnel holds the certificate, whatever else the
// namespace says. A neighbour in mode sidecar has its Secret.
func TestNoSecretInModeAmbient(t *testing.T) {
	w := start(t)
	ns := w.namespace(map[string]string{policy.ModeKey: "ambient", policy.ServiceAccountKey: "edge", policy.TLSContextKey: "true"}, "edge", "other")
	w.edge(ns, edgePod("front", "edge", nil))
	w.reaches("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "ambient", "state": "injected"}, 1)
	_, err := w.kube.CoreV1().Secrets(ns).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "%v", err)
	assert.Zero(t, w.mesh.count(ns), "no certificate was asked for")

	w.edge(ns, edgePod("beside", "other", map[string]string{policy.ModeKey: "sidecar"}))
	w.mesh.holds(t, w.secret(ns, "istio-certs", anything).Data, idOf(ns, "other"))
	w.reaches("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "ambient", "state": "injected"}, 1)
	w.reaches("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "sidecar", "state": "injected"}, 1)
}
