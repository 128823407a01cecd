package admission

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// The server's cache of namespaces is behind the API server, here for as long as
// the test wants. Whoever is opted in by a namespace or a label that is younger
// must not notice.
func TestYoungNamespaceIsHonouredThoughTheCacheIsBehind(t *testing.T) {
	relabelled := newSpace(t)
	watch := delayWatches(t, "/api/v1/namespaces")
	r, err := world.startReplica(t.Context(), "--kubeconfig="+watch.kubeconfig)
	require.NoError(t, err)
	t.Cleanup(func() {
		watch.release()
		world.door.lead(world.server)
		assert.NoError(t, r.stop(context.WithoutCancel(t.Context())))
	})
	world.door.lead()
	world.door.lead(r)
	watch.hold()

	t.Run("made with the label", func(t *testing.T) {
		s := newSpace(t, enabled, annotation("isthmus.dev/cert-dir", "/certs"))
		pod, err := s.dryRun(edgePod("edge"))
		require.NoError(t, err)
		require.True(t, isInjected(pod))
		assert.Equal(t, "/certs", variable(&pod.Spec.Containers[0], "AMBASSADOR_ISTIO_SECRET_DIR"))
	})
	t.Run("made with the lock", func(t *testing.T) {
		s := newSpace(t, label("isthmus.dev/injection", "disabled"))
		_, err := s.dryRun(edgePod("edge", asks))
		assert.ErrorContains(t, err, "namespace "+s.name+" is locked")
	})
	t.Run("labelled now", func(t *testing.T) {
		relabelled.setLabel("isthmus.dev/injection", "enabled")
		// The API server itself learns of the label a moment late.
		awaitAsked(t, func() bool {
			pod, err := relabelled.dryRun(edgePod("edge"))
			require.NoError(t, err)
			return isInjected(pod)
		})
	})
	optedOut, err := r.counter(t.Context(), admissions, `reason="opted-out"`)
	require.NoError(t, err)
	assert.Zero(t, optedOut, "no review was decided by what is out of date")
}

// The chart's own pods have to run where Pod Security restricts.
func TestChartsPodsAreAdmittedWherePodSecurityRestricts(t *testing.T) {
	deployment, err := rendered[appsv1.Deployment](world, "Deployment", webhookName)
	require.NoError(t, err)
	s := newSpace(t, restricted)
	require.NoError(t, world.createServiceAccount(t.Context(), s.name, webhookName))
	template := deployment.Spec.Template
	meta := template.ObjectMeta
	meta.Name = "webhook"

	_, err = s.dryRun(&corev1.Pod{ObjectMeta: meta, Spec: template.Spec})

	assert.NoError(t, err)
}
