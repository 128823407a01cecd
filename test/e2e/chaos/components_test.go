//go:build chaos

package chaos

import (
	"context"
	"fmt"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/test/framework/node"
)

// The components of Isthmus, as in the label app.kubernetes.io/component.
const (
	webhookComponent    = "webhook"
	controllerComponent = "controller"
)

// componentSelector selects the objects of a component.
func componentSelector(component string) string { return "app.kubernetes.io/component=" + component }

// replicas lists the pods of a component that are not being deleted.
func (tr *Trial) replicas(component string) []corev1.Pod {
	tr.Helper()
	var found []corev1.Pod
	tr.await("list the replicas of the "+component, func(ctx context.Context) error {
		list, err := cluster.Client.CoreV1().Pods(node.Namespace).List(ctx, metav1.ListOptions{LabelSelector: componentSelector(component)})
		if err != nil {
			return err
		}
		found = nil
		for i := range list.Items {
			if list.Items[i].DeletionTimestamp == nil {
				found = append(found, list.Items[i])
			}
		}
		return nil
	})
	return found
}

// containerID returns the ID of a replica's only container.
func containerID(pod *corev1.Pod) string { return pod.Status.ContainerStatuses[0].ContainerID }

// killReplica kills the process of a replica, and waits until a new one runs.
func (tr *Trial) killReplica(pod *corev1.Pod) {
	tr.Helper()
	require.NoError(tr, cluster.KillContainer(tr.Context(), containerID(pod)))
	tr.AwaitRecovery("restarted", func(ctx context.Context) error { return checkRestarted(ctx, pod) })
}

// checkRestarted returns an error until the pod has another container that is ready.
func checkRestarted(ctx context.Context, pod *corev1.Pod) error {
	now, err := cluster.Client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if s := now.Status.ContainerStatuses[0]; containerID(now) == containerID(pod) || !s.Ready {
		return fmt.Errorf("pod %s/%s: %d restarts, ready: %t", pod.Namespace, pod.Name, s.RestartCount, s.Ready)
	}
	return nil
}

// deletePod deletes a replica with this grace period in seconds.
func (tr *Trial) deletePod(pod *corev1.Pod, grace int64) {
	tr.Helper()
	err := cluster.Client.CoreV1().Pods(pod.Namespace).Delete(tr.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(grace)})
	if err != nil && !apierrors.IsNotFound(err) {
		require.NoError(tr, err)
	}
}

// scale sets the number of replicas of the selected Deployments, and retries until that works.
func (tr *Trial) scale(namespace, selector string, replicas int) {
	tr.Helper()
	tr.await("scale "+selector, func(ctx context.Context) error { return scale(ctx, namespace, selector, replicas) })
}

// scale sets the number of replicas of the Deployments that a label selects in a namespace.
func scale(ctx context.Context, namespace, selector string, replicas int) error {
	_, err := cluster.Kubectl(ctx, "", "--namespace", namespace, "scale", "deployment", "--selector="+selector, fmt.Sprintf("--replicas=%d", replicas))
	return err
}
