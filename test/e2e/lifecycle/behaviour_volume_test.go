//go:build e2e

package lifecycle

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/patches"
)

// A container that may write to the volume of the certificates can fill at most 1 MiB of
// memory, which is charged to that container. Neither the pod nor the node is affected.
func TestCertificateVolumeIsBounded(t *testing.T) {
	t.Parallel()
	s := newNamespace(t, "volume", nil)
	s.createReady(t, withCertificateFolder(inspectorPod("edge", "--remain")))
	pods := s.Client.CoreV1().Pods(s.name)
	pod, err := pods.Get(t.Context(), "edge", metav1.GetOptions{})
	require.NoError(t, err)
	filler := inspectorContainer("filler", agentUID, "--folder=/certificates", "--fill")
	pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: filler.Name, Image: filler.Image, ImagePullPolicy: filler.ImagePullPolicy, Args: filler.Args, SecurityContext: filler.SecurityContext,
		VolumeMounts: []corev1.VolumeMount{{Name: patches.CertsVolume, MountPath: "/certificates"}},
	}})
	_, err = pods.UpdateEphemeralContainers(t.Context(), "edge", pod, metav1.UpdateOptions{})
	require.NoError(t, err)
	pod = s.awaitPod(t, "edge", func(pod *corev1.Pod) error {
		if containerStatus(pod, "filler").State.Terminated == nil {
			return errors.New("the filler has not ended")
		}
		return nil
	})
	v := s.firstView(t, "edge", "filler")
	t.Logf("capacity %d, written %d, then %q; %d charged to the writer", v.Capacity, v.Filled, v.Full, v.Charged)
	assert.EqualValues(t, 1<<20, v.Capacity)
	assert.Contains(t, v.Full, "no space left on device")
	assert.LessOrEqual(t, v.Filled, v.Capacity)
	assert.InDelta(t, v.Filled, v.Charged, 64<<10, "the memory is charged to the container that writes")
	assert.Equal(t, corev1.PodRunning, pod.Status.Phase)
	for _, container := range []string{"edge", patches.SidecarName} {
		assert.Zero(t, containerStatus(pod, container).RestartCount, container)
	}
	limits := nativeSidecar(t, pod).Resources.Limits
	assert.Less(t, v.Capacity, limits.Memory().Value(), "the agent's limit is larger than the volume")
}
