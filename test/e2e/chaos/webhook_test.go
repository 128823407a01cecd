//go:build chaos

package chaos

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/test/framework/pods"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Each replica's process is killed, then each replica's pod, while a workload starts.
func TestWebhookReplicasAreKilled(t *testing.T) {
	trial(t, "webhook replica killed", func(_ context.Context, tr *Trial) {
		tr.ExpectRefusedPods("the API server calls a dead process until the node has reported it, and only its retries reach the other replica")
		for i, replica := range tr.replicas(webhookComponent) {
			name := fmt.Sprintf("meanwhile-%d", i)
			tr.CreateWorkload(tr.Namespace, pods.Edge(name), 2)
			tr.killReplica(&replica)
			tr.AwaitRecovery("workload", func(ctx context.Context) error { return checkReady(ctx, tr.Namespace, name, true) })
			tr.await("both serve", tr.checkHealthy)
		}
		for _, replica := range tr.replicas(webhookComponent) {
			tr.deletePod(&replica, 0)
			tr.AwaitRecovery("replaced", func(ctx context.Context) error { return tr.checkReplicaReplaced(ctx, replica.Name) })
		}
	})
}

// Each replica shuts down, as in a drain of its node: not even one pod waits.
func TestWebhookReplicasShutDown(t *testing.T) {
	trial(t, "webhook replica shut down", func(_ context.Context, tr *Trial) {
		for _, replica := range tr.replicas(webhookComponent) {
			tr.deletePod(&replica, *replica.Spec.TerminationGracePeriodSeconds)
			tr.AwaitRecovery("replaced", func(ctx context.Context) error { return tr.checkReplicaReplaced(ctx, replica.Name) })
		}
	})
}

// No replica is left: pods that request an injection wait, and all other pods start.
func TestWebhookIsDown(t *testing.T) {
	trial(t, "all webhook replicas killed", func(_ context.Context, tr *Trial) {
		tr.ExpectRefusedPods("no webhook answers, and failurePolicy is Fail")
		unlabelled := tr.Namespace + "-plain"
		tr.createNamespace(unlabelled, nil, nil)
		tr.Cleanup(func() {
			assert.NoError(tr, scale(context.Background(), node.Namespace, componentSelector(webhookComponent), 2), "the other trials need the webhook")
		})
		tr.scale(node.Namespace, componentSelector(webhookComponent), 0)
		for _, replica := range tr.replicas(webhookComponent) {
			tr.deletePod(&replica, 0)
		}
		tr.await("no replica is left", func(context.Context) error {
			if seen := tr.Pods.Snapshot(); seen.Refused == 0 {
				return fmt.Errorf("no pod was refused: %s", seen)
			}
			return nil
		})

		optedOut, optsIn := pods.Edge("opted-out"), pods.Edge("asks")
		optedOut.Annotations[policy.InjectKey], optsIn.Annotations[policy.InjectKey] = "false", "true"
		tr.CreateWorkload(tr.Namespace, pods.Edge("opted-in"), 1)
		tr.CreateWorkload(unlabelled, optsIn, 1)
		tr.CreateWorkload(tr.Namespace, optedOut, 1)
		tr.CreateWorkload(unlabelled, pods.Edge("plain"), 1)
		tr.AwaitRecovery("others start", func(ctx context.Context) error {
			if err := checkReady(ctx, tr.Namespace, "opted-out", false); err != nil {
				return err
			}
			return checkReady(ctx, unlabelled, "plain", false)
		})
		tr.assertNoPods(tr.Namespace, "opted-in")
		tr.assertNoPods(unlabelled, "asks")

		tr.scale(node.Namespace, componentSelector(webhookComponent), 2)
		tr.AwaitRecovery("webhook", tr.checkHealthy)
		tr.AwaitRecovery("opted in", func(ctx context.Context) error { return checkReady(ctx, tr.Namespace, "opted-in", true) })
		tr.AwaitRecovery("asks", func(ctx context.Context) error { return checkReady(ctx, unlabelled, "asks", true) })
	})
}

// checkReplicaReplaced returns an error until two replicas of the webhook are ready and the
// deleted one is gone, with its containers.
func (tr *Trial) checkReplicaReplaced(ctx context.Context, deleted string) error {
	_, err := cluster.Client.CoreV1().Pods(node.Namespace).Get(ctx, deleted, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return errors.Join(fmt.Errorf("pod %s still exists", deleted), err)
	}
	if replicas := tr.replicas(webhookComponent); len(replicas) != 2 {
		return fmt.Errorf("the webhook has %d replicas", len(replicas))
	}
	return tr.checkHealthy(ctx)
}

// assertNoPods asserts that a workload has no pod, and that its status says why.
func (tr *Trial) assertNoPods(namespace, name string) {
	tr.Helper()
	list, err := cluster.Client.CoreV1().Pods(namespace).List(tr.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
	require.NoError(tr, err)
	assert.Empty(tr, list.Items, "pods of %s/%s while no webhook answers", namespace, name)
	tr.await("the status of the workload says why it waits", func(ctx context.Context) error {
		d, err := cluster.Client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range d.Status.Conditions {
			if c.Type == "ReplicaFailure" && c.Status == "True" {
				return nil
			}
		}
		return fmt.Errorf("deployment %s/%s has no condition ReplicaFailure", namespace, name)
	})
}
