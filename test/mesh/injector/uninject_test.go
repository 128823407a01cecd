package injector

import (
	"encoding/json"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

func uninjected(t *testing.T, pod *corev1.Pod) (*corev1.Pod, error) {
	t.Helper()
	operations, err := inject.Uninject(pod)
	if err != nil {
		return nil, err
	}
	return patched(t, pod, operations), nil
}

// patched applies a JSON patch.
func patched(t *testing.T, pod *corev1.Pod, operations any) *corev1.Pod {
	t.Helper()
	document, err := json.Marshal(pod)
	require.NoError(t, err)
	encoded, err := json.Marshal(operations)
	require.NoError(t, err)
	patch, err := jsonpatch.DecodePatch(encoded)
	require.NoError(t, err)
	document, err = patch.Apply(document)
	require.NoError(t, err)
	got := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(document, got))
	return got
}

// In the modes without Istio's injector, uninject restores the stored pod completely.
func TestUninjectStoredPod(t *testing.T) {
	for _, mode := range []string{"sidecar", "secret", "ambient"} {
		t.Run(mode, func(t *testing.T) {
			withoutIsthmus := newNamespace(t, nil, nil)
			want, err := withoutIsthmus.create(modified(edgePod(), vendorAnnotations))
			require.NoError(t, err)
			ns := newNamespace(t, injectionEnabled.merge(keyValues{"istio-injection": "enabled"}), keyValues{"isthmus.dev/mode": mode})
			pod, err := ns.create(modified(edgePod(), vendorAnnotations))
			require.NoError(t, err)

			got, err := uninjected(t, pod)

			require.NoError(t, err)
			assertSamePod(t, withoutTokenVolume(want), withoutTokenVolume(got), "without the token's volume, whose name is random")
		})
	}
}

// Istio's sidecar mounts the volume that uninject would remove, so uninject refuses the live
// pod; it accepts the template of the pod's owner.
func TestUninjectStoredPodOfModeIstioIsRefused(t *testing.T) {
	ns := newNamespace(t, injectionEnabled.merge(keyValues{"istio-injection": "enabled"}), keyValues{"isthmus.dev/mode": "istio"})
	pod, err := ns.create(modified(edgePod(), vendorAnnotations))
	require.NoError(t, err)

	_, err = uninjected(t, pod)

	assert.EqualError(t, err, "spec.initContainers[1].volumeMounts: container istio-proxy, which Istio's injector added, mounts volume istio-certs; "+
		"uninject the template that the pod was created from")
}

// withoutTokenVolume returns the pod without what the API server's service account plugin
// adds, whose name is random.
func withoutTokenVolume(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.Spec.Volumes = nil
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].VolumeMounts = nil
	}
	return pod
}
