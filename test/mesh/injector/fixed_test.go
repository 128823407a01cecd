package injector

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// What both injectors made is what both injectors leave: asked again in any
// order, and as a pod that is created anew, nothing changes.
func TestStoredPodIsAFixedPoint(t *testing.T) {
	for _, mode := range slices.Sorted(maps.Keys(judges)) {
		for what, make := range pods {
			t.Run(mode+", "+what, func(t *testing.T) {
				s := newSpace(t, enabled.with(keys{"istio-injection": "enabled"}), keys{"isthmus.dev/mode": mode})
				pod, err := s.create(make())
				require.NoError(t, err)
				s.warnings.Drain()
				ours, istios := ourInjector(t), istioInjector(t)

				again, changed := ours.edit(t, s.name, pod)
				assert.False(t, changed, "Isthmus edits nothing")
				assertSame(t, pod, completed(t, istioEdit(t, s, mode, again)), "Isthmus, then Istio")

				again = istioEdit(t, s, mode, pod)
				again, changed = ours.edit(t, s.name, again)
				assert.False(t, changed, "Isthmus edits nothing after Istio either")
				again, _ = istios.edit(t, s.name, again)
				assertSame(t, pod, completed(t, again), "Istio, Isthmus, and Istio once more")

				require.NoError(t, s.client.CoreV1().Pods(s.name).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
				again, err = s.create(resent(pod))
				require.NoError(t, err)
				assertSame(t, pod, again, "created anew")
				assert.Empty(t, s.warnings.Drain())
			})
		}
	}
}

// istioEdit is what Istio's injector makes of a pod that its selectors send it:
// that of mode istio alone.
func istioEdit(t *testing.T, s *space, mode string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	if mode != "istio" {
		assert.Equal(t, "false", pod.Labels["sidecar.istio.io/inject"])
	}
	edited, _ := istioInjector(t).edit(t, s.name, pod)
	return edited
}

// Istio's injector alone is the measure: what it made without Isthmus it leaves
// too, when it is asked again.
func TestIstioAloneIsAFixedPoint(t *testing.T) {
	for what, make := range pods {
		t.Run(what, func(t *testing.T) {
			s := newSpace(t, keys{"istio-injection": "enabled"}, nil)
			pod, err := s.create(changed(make(), labelled("sidecar.istio.io/inject", "true")))
			require.NoError(t, err)
			require.NoError(t, proxies(1)(pod))

			again, _ := istioInjector(t).edit(t, s.name, pod)

			assertSame(t, pod, completed(t, again), "Istio, and Istio again")
		})
	}
}

// Where Istio's sidecar is an ordinary container, as on older nodes, it comes in
// front of the edge, which waits for it.
func TestWithoutNativeSidecars(t *testing.T) {
	for what, make := range pods {
		t.Run(what, func(t *testing.T) {
			s := newSpace(t, enabled.with(istioEnabled), keys{"isthmus.dev/mode": "istio"})
			before := changed(make(), annotated("sidecar.istio.io/nativeSidecar", "false"))
			edge := before.Spec.Containers[0].Name

			pod, err := s.create(before)

			require.NoError(t, err)
			assert.Empty(t, s.warnings.Drain())
			require.Equal(t, []string{"istio-init"}, names(pod.Spec.InitContainers))
			judgeCapture(t, &pod.Spec.InitContainers[0])
			require.Equal(t, []string{"istio-proxy", edge}, names(pod.Spec.Containers))
			proxy := &pod.Spec.Containers[0]
			assert.Equal(t, []string{"/etc/istio-certs"}, values(proxy, "OUTPUT_CERTS"))
			assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs"}}, mounts(proxy, "istio-certs"))
			require.NotNil(t, proxy.Lifecycle)
			assert.Equal(t, []string{"pilot-agent", "wait"}, proxy.Lifecycle.PostStart.Exec.Command)
			assert.Equal(t, edge, pod.Annotations["kubectl.kubernetes.io/default-container"])
			assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs", ReadOnly: true}}, mounts(&pod.Spec.Containers[1], "istio-certs"))

			again, changed := ourInjector(t).edit(t, s.name, pod)
			assert.False(t, changed)
			again, _ = istioInjector(t).edit(t, s.name, again)
			again, changed = ourInjector(t).edit(t, s.name, again)
			assert.False(t, changed)
			assertSame(t, pod, completed(t, again), "Isthmus, Istio and Isthmus again")
		})
	}
}
