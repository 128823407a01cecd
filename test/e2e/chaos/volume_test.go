//go:build chaos

package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/patches"
)

const (
	// fillDuration is how long the directory is full: from right after a rotation until the
	// next one, after half of a short lifetime, has failed.
	fillDuration = 36 * time.Second
	// agentUID is the user of Istio's agent, the only one that may write there.
	agentUID = 1337
)

// The directory of the certificates is full when the agent rotates: the files in it stay
// complete, and so does the Secret.
func directoryFilled(ctx context.Context, tr *Trial) {
	e := tr.deployPublishingEdge(ctx, 1)
	e.awaitRotation(tr, "first rotation")
	pods, err := e.pods(ctx)
	require.NoError(tr, err)
	pod, start := &pods[0], time.Now()
	e.fillDirectory(ctx, tr, pod)
	tr.await("the agent fails to write", func(ctx context.Context) error {
		return checkLog(ctx, e.edge, patches.SidecarName, start, "error when output the resource")
	})
	tr.ExpectFailedRequests("Istio's agent writes again after another half of the lifetime, which is when the files expire")
	tr.await("there is space again", func(ctx context.Context) error {
		now, err := cluster.Client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && now.Status.EphemeralContainerStatuses[0].State.Terminated == nil {
			err = errors.New("the filler has not ended")
		}
		return err
	})
	e.awaitRotation(tr, "next certificate")
	tr.await("the edge is ready", func(ctx context.Context) error {
		now, err := cluster.Client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && !isPodReady(now) {
			err = fmt.Errorf("pod %s/%s is not ready", now.Namespace, now.Name)
		}
		return err
	})
	for name, restarts := range e.containerRestarts(ctx, tr) {
		assert.Zero(tr, restarts, "restarts of container %s", name)
	}
	e.recordTraffic(tr)
}

// fillDirectory has a container of the pod, with the agent's user, fill the directory.
func (e *publishingEdge) fillDirectory(ctx context.Context, tr *Trial, pod *corev1.Pod) {
	tr.Helper()
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "filler", Image: "isthmus.test/mesh:dev", ImagePullPolicy: corev1.PullIfNotPresent,
		Args:         []string{"look", "--folder=/certificates", "--fill", "--settle=" + fillDuration.String()},
		VolumeMounts: []corev1.VolumeMount{{Name: patches.CertsVolume, MountPath: "/certificates"}},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: ptr.To[int64](agentUID), RunAsGroup: ptr.To[int64](agentUID), RunAsNonRoot: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}}}
	_, err := cluster.Client.CoreV1().Pods(pod.Namespace).UpdateEphemeralContainers(ctx, pod.Name, pod, metav1.UpdateOptions{})
	require.NoError(tr, err)
}
