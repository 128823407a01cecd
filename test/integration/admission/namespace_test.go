package admission

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// The server's cache of namespaces is behind the API server, here until the test releases
// it. A namespace or a label that is newer than the cache must have its effect nevertheless.
func TestNewNamespaceIsUsedWhileTheCacheIsStale(t *testing.T) {
	relabelled := newNamespace(t)
	watch := delayWatches(t, "/api/v1/namespaces")
	r, err := env.startReplica(t.Context(), "--kubeconfig="+watch.kubeconfig)
	require.NoError(t, err)
	t.Cleanup(func() {
		watch.release()
		env.service.setReplicas(env.server)
		assert.NoError(t, r.stop(context.WithoutCancel(t.Context())))
	})
	env.service.setReplicas()
	env.service.setReplicas(r)
	watch.hold()

	t.Run("created with the label enabled", func(t *testing.T) {
		s := newNamespace(t, enabled, annotation("isthmus.dev/cert-dir", "/certs"))
		pod, err := s.dryRun(edgePod("edge"))
		require.NoError(t, err)
		require.True(t, isInjected(pod))
		assert.Equal(t, "/certs", variable(&pod.Spec.Containers[0], "AMBASSADOR_ISTIO_SECRET_DIR"))
	})
	t.Run("created with the label disabled", func(t *testing.T) {
		s := newNamespace(t, label("isthmus.dev/injection", "disabled"))
		_, err := s.dryRun(edgePod("edge", optIn))
		assert.ErrorContains(t, err, "namespace "+s.name+" is locked")
	})
	t.Run("labelled after its creation", func(t *testing.T) {
		relabelled.setLabel("isthmus.dev/injection", "enabled")
		// The API server itself observes the label a moment later.
		awaitConfiguration(t, func() bool {
			pod, err := relabelled.dryRun(edgePod("edge"))
			require.NoError(t, err)
			return isInjected(pod)
		})
	})
	optedOut, err := r.counter(t.Context(), admissionTotal, `reason="opted-out"`)
	require.NoError(t, err)
	assert.Zero(t, optedOut, "no review was decided by the stale cache")
}

// The chart's pods must be admitted if Pod Security enforces "restricted".
func TestChartsPodsAreAdmittedWherePodSecurityRestricts(t *testing.T) {
	deployment, err := rendered[appsv1.Deployment](env, "Deployment", webhookName)
	require.NoError(t, err)
	s := newNamespace(t, restricted)
	require.NoError(t, env.createServiceAccount(t.Context(), s.name, webhookName))
	template := deployment.Spec.Template
	metadata := template.ObjectMeta
	metadata.Name = "webhook"

	_, err = s.dryRun(&corev1.Pod{ObjectMeta: metadata, Spec: template.Spec})

	assert.NoError(t, err)
}
