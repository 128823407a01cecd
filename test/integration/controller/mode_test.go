package controller

import (
	"testing"

	"github.com/stretchr/testify/assert"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestSecretOfAnEdgeInModeIstio checks that the Secret is the same if Istio injects the
// agent.
func TestSecretOfAnEdgeInModeIstio(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(map[string]string{policy.ModeKey: "istio"}, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-certs", anySecret).Data, spiffeID(ns, "edge"))
	env.awaitMetric("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "istio", "state": "injected"}, 1)
}

// TestNoSecretInModeAmbient checks that there is no Secret, since ztunnel has the
// certificate, even with other annotations of the namespace. Another pod in mode sidecar has
// its Secret.
func TestNoSecretInModeAmbient(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(map[string]string{policy.ModeKey: "ambient", policy.ServiceAccountKey: "edge", policy.TLSContextKey: "true"}, "edge", "other")
	env.createEdge(ns, edgePod("front", "edge", nil))
	env.awaitMetric("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "ambient", "state": "injected"}, 1)
	_, err := env.kube.CoreV1().Secrets(ns).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "%v", err)
	assert.Zero(t, env.mesh.issuedCount(ns), "no certificate was asked for")

	env.createEdge(ns, edgePod("beside", "other", map[string]string{policy.ModeKey: "sidecar"}))
	env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-certs", anySecret).Data, spiffeID(ns, "other"))
	env.awaitMetric("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "ambient", "state": "injected"}, 1)
	env.awaitMetric("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "sidecar", "state": "injected"}, 1)
}
