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
func TestWebhookReplicaKilled(t *testing.T) {
	trial(t, "webhook replica killed", func(_ context.Context, tr *Trial) {
		tr.MayWait("until the node has told that a process is dead, the API server is led to it, and its other attempts to the replica that lives")
		for i, replica := range tr.replicas(webhookPart) {
			name := fmt.Sprintf("meanwhile-%d", i)
			tr.Deploy(tr.Namespace, pods.Edge(name), 2)
			tr.kill(&replica)
			tr.Heal("workload", func(ctx context.Context) error { return ready(ctx, tr.Namespace, name, true) })
			tr.await("both serve", tr.whole)
		}
		for _, replica := range tr.replicas(webhookPart) {
			tr.remove(&replica, 0)
			tr.Heal("replaced", func(ctx context.Context) error { return tr.replaced(ctx, replica.Name) })
		}
	})
}

// Each replica is told to end, as by a drain of its node: not even one pod waits.
func TestWebhookReplicaEnded(t *testing.T) {
	trial(t, "webhook replica ended in order", func(_ context.Context, tr *Trial) {
		for _, replica := range tr.replicas(webhookPart) {
			tr.remove(&replica, *replica.Spec.TerminationGracePeriodSeconds)
			tr.Heal("replaced", func(ctx context.Context) error { return tr.replaced(ctx, replica.Name) })
		}
	})
}

// No replica is left: who asks for an injection waits, and nobody else does.
func TestWebhookAway(t *testing.T) {
	trial(t, "all webhook replicas killed", func(_ context.Context, tr *Trial) {
		tr.MayWait("nobody answers for the webhook, and failurePolicy is Fail")
		plain := tr.Namespace + "-plain"
		tr.namespace(plain, nil, nil)
		tr.Cleanup(func() {
			assert.NoError(tr, scale(context.Background(), node.Namespace, labelled(webhookPart), 2), "whatever failed, the others have a webhook")
		})
		tr.scale(webhookPart, 0)
		for _, replica := range tr.replicas(webhookPart) {
			tr.remove(&replica, 0)
		}
		tr.await("no replica is left", func(context.Context) error {
			if seen := tr.Pods.Snapshot(); seen.Refused == 0 {
				return fmt.Errorf("no pod was refused: %s", seen)
			}
			return nil
		})

		optedOut, asks := pods.Edge("opted-out"), pods.Edge("asks")
		optedOut.Annotations[policy.InjectKey], asks.Annotations[policy.InjectKey] = "false", "true"
		tr.Deploy(tr.Namespace, pods.Edge("opted-in"), 1)
		tr.Deploy(plain, asks, 1)
		tr.Deploy(tr.Namespace, optedOut, 1)
		tr.Deploy(plain, pods.Edge("plain"), 1)
		tr.Heal("others start", func(ctx context.Context) error {
			if err := ready(ctx, tr.Namespace, "opted-out", false); err != nil {
				return err
			}
			return ready(ctx, plain, "plain", false)
		})
		tr.waits(tr.Namespace, "opted-in")
		tr.waits(plain, "asks")

		tr.scale(webhookPart, 2)
		tr.Heal("webhook", tr.whole)
		tr.Heal("opted in", func(ctx context.Context) error { return ready(ctx, tr.Namespace, "opted-in", true) })
		tr.Heal("asks", func(ctx context.Context) error { return ready(ctx, plain, "asks", true) })
	})
}

// replaced says what is missing until two replicas of the webhook serve, none of them
// this one, whose containers are gone.
func (tr *Trial) replaced(ctx context.Context, gone string) error {
	_, err := cluster.Client.CoreV1().Pods(node.Namespace).Get(ctx, gone, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return errors.Join(fmt.Errorf("pod %s is there still", gone), err)
	}
	if replicas := tr.replicas(webhookPart); len(replicas) != 2 {
		return fmt.Errorf("the webhook has %d replicas", len(replicas))
	}
	return tr.whole(ctx)
}

// waits asserts that a workload has no pod, and is told why.
func (tr *Trial) waits(namespace, name string) {
	tr.Helper()
	list, err := cluster.Client.CoreV1().Pods(namespace).List(tr.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
	require.NoError(tr, err)
	assert.Empty(tr, list.Items, "pods of %s/%s while no webhook answers", namespace, name)
	tr.await("the workload says why it waits", func(ctx context.Context) error {
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
