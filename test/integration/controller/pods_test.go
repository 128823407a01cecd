package controller

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestWarningsAreRepeated(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	pod := edgePod("front", "edge", nil)
	isController := true
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "front-abc", UID: "b2", Controller: &isController}}
	env.createEdge(ns, pod)
	note := env.awaitEvent(ns, "Pod", "front", "files-not-reloaded")
	assert.Contains(t, note, "notices a rotated file only when something else makes it reconfigure")
	assert.Equal(t, note, env.awaitEvent(ns, "ReplicaSet", "front-abc", "files-not-reloaded"))
}

func TestStaleTemplate(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	edges := func(state string) map[string]string {
		return map[string]string{"namespace": ns, "mode": "sidecar", "state": state}
	}
	env.awaitMetric("isthmus_edge_pods", edges("injected"), 1)
	env.stop()
	changed := settings
	changed.Mesh.ProxyImage = "docker.io/istio/proxyv2:1.99.0"
	engine, err := inject.New(inject.Options{Settings: changed})
	require.NoError(t, err)
	env.engine = engine
	env.startController()
	env.awaitMetric("isthmus_edge_pods", edges("stale"), 1)
	_, ok := env.metric("isthmus_edge_pods", edges("injected"))
	assert.False(t, ok)
}

func TestEndedPodsClaimNothing(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge", "job")
	ended := env.createEdge(ns, edgePod("ended", "job", nil))
	env.awaitSecret(ns, "istio-certs", anySecret)
	ended.Status.Phase = corev1.PodSucceeded
	_, err := env.kube.CoreV1().Pods(ns).UpdateStatus(t.Context(), ended, metav1.UpdateOptions{})
	require.NoError(t, err)
	env.awaitNoSeries("isthmus_edge_pods", map[string]string{"namespace": ns, "state": "injected"})
	env.createEdge(ns, edgePod("front", "edge", map[string]string{policy.SecretNameKey: "istio-other"}))
	env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-other", anySecret).Data, spiffeID(ns, "edge"))
	env.awaitMetric("isthmus_edge_pods", map[string]string{"namespace": ns, "state": "injected"}, 1)
}

// Names of pods may be as long as those of Events, and notes in other scripts than Latin are
// cut between two characters.
func TestEventsOfLongNamesArrive(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	for _, name := range []string{strings.Repeat("e", 253), strings.Repeat("e", 235) + "." + strings.Repeat("f", 17)} {
		pod := edgePod(name, "edge", map[string]string{policy.CertTTLKey: strings.Repeat("é", 1000)})
		pod.Labels = map[string]string{policy.InjectedLabel: string(policy.Sidecar)}
		env.createPod(ns, pod)
		note := env.awaitEvent(ns, "Pod", name, string(policy.InvalidOverride))
		assert.Contains(t, note, policy.CertTTLKey)
		assert.NotContains(t, note, "\ufffd")
	}
}
