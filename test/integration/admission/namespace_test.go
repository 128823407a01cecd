package admission

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// The server's cache of namespaces is behind the API server; a namespace that
// is younger than the cache is asked for.
func TestNamespaceMadeRightBeforeThePodIsHonoured(t *testing.T) {
	for i := range 10 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			opted := newSpace(t, enabled, annotation("isthmus.dev/cert-dir", "/certs"))
			pod, err := opted.dryRun(edgePod("edge"))
			require.NoError(t, err)
			require.True(t, isInjected(pod))
			assert.Equal(t, "/certs", variable(&pod.Spec.Containers[0], "AMBASSADOR_ISTIO_SECRET_DIR"))

			locked := newSpace(t, label("isthmus.dev/injection", "disabled"))
			_, err = locked.dryRun(edgePod("edge", asks))
			assert.ErrorContains(t, err, "namespace "+locked.name+" is locked")
		})
	}
}

// The API server itself learns of a label a moment late. From when it asks on,
// the server must not be the one that is behind.
func TestNamespaceLabelledRightBeforeThePodIsHonoured(t *testing.T) {
	counters := count(t)
	for range 10 {
		s := newSpace(t)
		s.setLabel("isthmus.dev/injection", "enabled")
		awaitAsked(t, func() bool {
			pod, err := s.dryRun(edgePod("edge"))
			require.NoError(t, err)
			return isInjected(pod)
		})
	}
	counters.grew(map[string]float64{"injected": 10, "opted-out": 0, "decided": 10})
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
