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

// Both injectors leave a pod unchanged that both have injected: when they are called again
// in any order, and when the pod is created again.
func TestStoredPodIsAFixedPoint(t *testing.T) {
	for _, mode := range slices.Sorted(maps.Keys(assertByMode)) {
		for name, newPod := range pods {
			t.Run(mode+", "+name, func(t *testing.T) {
				ns := newNamespace(t, injectionEnabled.merge(keyValues{"istio-injection": "enabled"}), keyValues{"isthmus.dev/mode": mode})
				pod, err := ns.create(newPod())
				require.NoError(t, err)
				ns.warnings.Drain()
				isthmus, istio := ourInjector(t), istioInjector(t)

				edited, isPatched := isthmus.edit(t, ns.name, pod)
				assert.False(t, isPatched, "Isthmus edits nothing")
				assertSamePod(t, pod, withDefaults(t, istioEdit(t, ns, mode, edited)), "Isthmus, then Istio")

				edited = istioEdit(t, ns, mode, pod)
				edited, isPatched = isthmus.edit(t, ns.name, edited)
				assert.False(t, isPatched, "Isthmus edits nothing after Istio either")
				edited, _ = istio.edit(t, ns.name, edited)
				assertSamePod(t, pod, withDefaults(t, edited), "Istio, Isthmus, and Istio once more")

				require.NoError(t, ns.client.CoreV1().Pods(ns.name).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
				edited, err = ns.create(asNewPod(pod))
				require.NoError(t, err)
				assertSamePod(t, pod, edited, "created again")
				assert.Empty(t, ns.warnings.Drain())
			})
		}
	}
}

// istioEdit returns the pod after Istio's injector, which is called only for a pod that its
// selectors match: that of mode istio.
func istioEdit(t *testing.T, ns *testNamespace, mode string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	if mode != "istio" {
		assert.Equal(t, "false", pod.Labels["sidecar.istio.io/inject"])
	}
	edited, _ := istioInjector(t).edit(t, ns.name, pod)
	return edited
}

// Istio's injector alone sets the standard: it leaves a pod unchanged that it injected
// without Isthmus.
func TestIstioAloneIsAFixedPoint(t *testing.T) {
	for name, newPod := range pods {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t, keyValues{"istio-injection": "enabled"}, nil)
			pod, err := ns.create(modified(newPod(), withLabel("sidecar.istio.io/inject", "true")))
			require.NoError(t, err)
			require.NoError(t, wantProxies(1)(pod))

			edited, _ := istioInjector(t).edit(t, ns.name, pod)

			assertSamePod(t, pod, withDefaults(t, edited), "Istio, and Istio again")
		})
	}
}

// On older nodes Istio's sidecar is an ordinary container: it comes before the edge, which
// waits for it.
func TestIstioWithoutNativeSidecars(t *testing.T) {
	for name, newPod := range pods {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t, injectionEnabled.merge(istioInjectionEnabled), keyValues{"isthmus.dev/mode": "istio"})
			before := modified(newPod(), withAnnotation("sidecar.istio.io/nativeSidecar", "false"))
			edge := before.Spec.Containers[0].Name

			pod, err := ns.create(before)

			require.NoError(t, err)
			assert.Empty(t, ns.warnings.Drain())
			require.Equal(t, []string{"istio-init"}, containerNames(pod.Spec.InitContainers))
			assertNothingCaptured(t, &pod.Spec.InitContainers[0])
			require.Equal(t, []string{"istio-proxy", edge}, containerNames(pod.Spec.Containers))
			proxy := &pod.Spec.Containers[0]
			assert.Equal(t, []string{"/etc/istio-certs"}, envValues(proxy, "OUTPUT_CERTS"))
			assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs"}}, volumeMounts(proxy, "istio-certs"))
			require.NotNil(t, proxy.Lifecycle)
			assert.Equal(t, []string{"pilot-agent", "wait"}, proxy.Lifecycle.PostStart.Exec.Command)
			assert.Equal(t, edge, pod.Annotations["kubectl.kubernetes.io/default-container"])
			assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs", ReadOnly: true}}, volumeMounts(&pod.Spec.Containers[1], "istio-certs"))

			edited, isPatched := ourInjector(t).edit(t, ns.name, pod)
			assert.False(t, isPatched)
			edited, _ = istioInjector(t).edit(t, ns.name, edited)
			edited, isPatched = ourInjector(t).edit(t, ns.name, edited)
			assert.False(t, isPatched)
			assertSamePod(t, pod, withDefaults(t, edited), "Isthmus, Istio and Isthmus again")
		})
	}
}
