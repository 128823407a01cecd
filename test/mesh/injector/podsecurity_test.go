package injector

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The API server enforces Pod Security: a pod of mode istio passes only where istio-cni
// replaces the privileges of Istio's init container, and the warning says so in advance.
// Pods of the other modes always pass.
func TestModesUnderRestrictedPodSecurity(t *testing.T) {
	const enforce = "pod-security.kubernetes.io/enforce"
	const needsCNI = `enforces Pod Security "restricted", and Istio's init container asks for NET_ADMIN: without istio-cni the pod is refused`
	for _, mode := range []string{"sidecar", "secret", "ambient"} {
		t.Run(mode, func(t *testing.T) {
			ns := newNamespace(t, injectionEnabled.merge(keyValues{"istio-injection": "enabled", enforce: "restricted"}), keyValues{"isthmus.dev/mode": mode})
			_, err := ns.create(edgePod())
			require.NoError(t, err)
			assert.Empty(t, ns.warnings.Drain())
		})
	}
	t.Run("istio without istio-cni", func(t *testing.T) {
		ns := newNamespace(t, injectionEnabled.merge(keyValues{"istio-injection": "enabled", enforce: "restricted"}), keyValues{"isthmus.dev/mode": "istio"})
		_, err := ns.create(edgePod())
		require.ErrorContains(t, err, `violates PodSecurity "restricted:latest"`)
		assert.ErrorContains(t, err, "istio-init")
		warned := ns.warnings.Drain()
		require.Len(t, warned, 1)
		assert.Contains(t, warned[0], needsCNI)
	})
	t.Run("istio with istio-cni", func(t *testing.T) {
		reinstallInjector(t, withCNI, wantInitContainer("istio-validation"))
		ns := newNamespace(t, injectionEnabled.merge(keyValues{"istio-injection": "enabled", enforce: "restricted"}), keyValues{"isthmus.dev/mode": "istio"})
		pod, err := ns.create(edgePod())
		require.NoError(t, err)
		assert.Equal(t, []string{"istio-validation", "istio-proxy"}, containerNames(pod.Spec.InitContainers))
		assertNothingCaptured(t, &pod.Spec.InitContainers[0])
		warned := ns.warnings.Drain()
		require.Len(t, warned, 1)
		assert.Contains(t, warned[0], needsCNI)
	})
}
