//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeAgents are the programs of a node beside its pods, in the order in which they start.
var nodeAgents = []string{"containerd", "kubelet", "kube-proxy"}

// The node's agents are down for a while: the pods go on.
func TestNodeAgentsAreRestarted(t *testing.T) {
	trial(t, "node's agents restarted", func(ctx context.Context, tr *Trial) {
		before := containerIDs(ctx, tr)
		for _, agent := range nodeAgents {
			require.NoError(tr, cluster.ControlComponent(ctx, "kill", agent))
		}
		time.Sleep(outage)
		tr.startAgents(ctx)
		tr.AwaitRecovery("all", tr.checkHealthy)
		assert.Equal(tr, before, containerIDs(ctx, tr), "no container was restarted")
	})
}

// The node loses power: every container ends, and is started again.
func TestNodeIsRebooted(t *testing.T) {
	trial(t, "node rebooted", func(ctx context.Context, tr *Trial) {
		tr.ExpectFailedRequests("both edges, their callers and the service behind them end with the only node")
		tr.ExpectRefusedPods("the webhook ends with the only node")
		before := containerIDs(ctx, tr)
		require.NotEmpty(tr, before)
		require.NoError(tr, cluster.ControlComponent(ctx, "kill", "kubelet"))
		require.NoError(tr, cluster.KillContainers(ctx))
		for _, agent := range []string{"containerd", "kube-proxy"} {
			require.NoError(tr, cluster.ControlComponent(ctx, "kill", agent))
		}
		tr.startAgents(ctx)
		tr.AwaitRecovery("every container", func(ctx context.Context) error {
			now := containerIDs(ctx, tr)
			for pod, id := range before {
				if now[pod] == id {
					return fmt.Errorf("%s still has container %s", pod, id)
				}
			}
			return tr.checkHealthy(ctx)
		})
		tr.AwaitRecovery("answers", checkAnswered)
	})
}

// checkAnswered returns an error until requests were answered through every edge since its
// caller began to count.
func checkAnswered(ctx context.Context) error {
	reports, err := edges.Report(ctx)
	if err != nil {
		return err
	}
	for name, r := range reports {
		if r.Requests == r.Failed {
			return fmt.Errorf("no request through edge %s was answered, of %d", name, r.Requests)
		}
	}
	return nil
}

// startAgents starts the agents that were killed, and waits until each of them works.
func (tr *Trial) startAgents(ctx context.Context) {
	tr.Helper()
	for _, agent := range nodeAgents {
		require.NoError(tr, cluster.ControlComponent(ctx, "restart", agent))
	}
}

// containerIDs returns the IDs of all containers except for those of trials, by pod and
// name.
func containerIDs(ctx context.Context, tr *Trial) map[string]string {
	found := map[string]string{}
	list, err := cluster.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	require.NoError(tr, err)
	for i := range list.Items {
		pod := &list.Items[i]
		if strings.HasPrefix(pod.Namespace, trialPrefix) || pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodRunning {
			continue
		}
		for _, s := range containerStatuses(pod) {
			if s.State.Running != nil {
				found[pod.Namespace+"/"+pod.Name+"/"+s.Name] = s.ContainerID
			}
		}
	}
	return found
}
