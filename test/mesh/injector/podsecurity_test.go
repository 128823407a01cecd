package injector

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Pod Security is the API server's own: mode istio passes where istio-cni makes
// Istio's init container harmless, and the warning says so before. The others
// pass anyway.
func TestPodSecurityRestricted(t *testing.T) {
	const enforce = "pod-security.kubernetes.io/enforce"
	const needsCNI = `enforces Pod Security "restricted", and Istio's init container asks for NET_ADMIN: without istio-cni the pod is refused`
	for _, mode := range []string{"sidecar", "secret", "ambient"} {
		t.Run(mode, func(t *testing.T) {
			s := newSpace(t, enabled.with(keys{"istio-injection": "enabled", enforce: "restricted"}), keys{"isthmus.dev/mode": mode})
			_, err := s.create(edge())
			require.NoError(t, err)
			assert.Empty(t, s.warnings.Drain())
		})
	}
	t.Run("istio without istio-cni", func(t *testing.T) {
		s := newSpace(t, enabled.with(keys{"istio-injection": "enabled", enforce: "restricted"}), keys{"isthmus.dev/mode": "istio"})
		_, err := s.create(edge())
		require.ErrorContains(t, err, `violates PodSecurity "restricted:latest"`)
		assert.ErrorContains(t, err, "istio-init")
		warned := s.warnings.Drain()
		require.Len(t, warned, 1)
		assert.Contains(t, warned[0], needsCNI)
	})
	t.Run("istio with istio-cni", func(t *testing.T) {
		reinstall(t, cni, served("istio-validation"))
		s := newSpace(t, enabled.with(keys{"istio-injection": "enabled", enforce: "restricted"}), keys{"isthmus.dev/mode": "istio"})
		pod, err := s.create(edge())
		require.NoError(t, err)
		assert.Equal(t, []string{"istio-validation", "istio-proxy"}, names(pod.Spec.InitContainers))
		judgeCapture(t, &pod.Spec.InitContainers[0])
		warned := s.warnings.Drain()
		require.Len(t, warned, 1)
		assert.Contains(t, warned[0], needsCNI)
	})
}
