//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/pods"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Each replica's process is killed, then each replica's pod: the other one serves.
func TestWebhookReplicaKilled(t *testing.T) {
	trial(t, "webhook replica killed", func(_ context.Context, tr *Trial) {
		for _, replica := range tr.replicas(webhookPart) {
			tr.kill(&replica)
			tr.await("both serve", tr.whole)
		}
		for _, replica := range tr.replicas(webhookPart) {
			tr.remove(&replica)
			tr.Heal("replaced", func(ctx context.Context) error { return tr.replaced(ctx, 2, replica.Name) })
		}
	})
}

// No replica is left: who asks for an injection waits, and nobody else does.
func TestWebhookAway(t *testing.T) {
	trial(t, "all webhook replicas killed", func(_ context.Context, tr *Trial) {
		tr.MayWait("nobody answers for the webhook, and failurePolicy is Fail")
		plain := tr.Namespace + "-plain"
		tr.namespace(plain, nil, nil)
		tr.scale(webhookPart, 0)
		for _, replica := range tr.replicas(webhookPart) {
			tr.remove(&replica)
		}
		tr.await("no replica is left", func(context.Context) error {
			if seen := tr.Pods.Seen(); seen.Refused == 0 {
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

// replaced says what is missing until so many replicas of the webhook serve without
// this one.
func (tr *Trial) replaced(ctx context.Context, want int, gone string) error {
	replicas := tr.replicas(webhookPart)
	for i := range replicas {
		if replicas[i].Name == gone {
			return fmt.Errorf("pod %s is still there", gone)
		}
	}
	if len(replicas) != want {
		return fmt.Errorf("%d replicas, want %d", len(replicas), want)
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
