//go:build chaos

package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/traffic"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// brief is how long a certificate lives whose agent is to rotate it while a trial
// looks: that happens at half of it.
const brief = "60s"

// publishing are the annotations of a namespace in which agents and publishers keep the
// Secret, with certificates that are brief. They are there before the first pod: a
// Secret of the controller's would stand for most of its longer life.
var publishing = map[string]string{policy.SourceKey: "agent", policy.CertTTLKey: brief}

// own is an edge of a trial's own that carries requests, with the publisher in its
// pods.
type own struct {
	*traffic.Traffic
	edge   traffic.Edge
	ledger *environment.SecretHistory
}

// publishing deploys such an edge.
func (tr *Trial) publishing(ctx context.Context, replicas int) *own {
	tr.Helper()
	t, err := traffic.Deploy(ctx, traffic.Options{
		Config: cluster.Admin, Prefix: tr.Namespace, Modes: []string{"sidecar"}, Replicas: replicas, Lifetime: lifetime,
		Annotations: publishing,
	})
	tr.Cleanup(func() { assert.NoError(tr, t.Remove(context.Background())) })
	require.NoError(tr, err)
	o := &own{Traffic: t, edge: t.Edges[0]}
	o.ledger = tr.Follow(o.edge.Namespace, o.edge.Account)
	tr.await("the publisher writes", func(context.Context) error { return standing(o.ledger, "") })
	require.Equal(tr, "agent", o.ledger.Current().Annotations[policy.SourceKey], "who wrote the Secret")
	require.NoError(tr, t.Reset(ctx))
	return o
}

// rotates waits until the agent's next certificate is in the Secret.
func (o *own) rotates(tr *Trial, what string) {
	tr.Helper()
	serials := len(o.ledger.Serials())
	tr.Heal(what, func(context.Context) error {
		if now := len(o.ledger.Serials()); now == serials {
			return fmt.Errorf("the Secret of namespace %s has had %d certificates", o.edge.Namespace, now)
		}
		return nil
	})
}

// judge adds what was lost through this edge to the trial's row.
func (o *own) judge(tr *Trial) {
	tr.Helper()
	reports, err := o.Report(context.WithoutCancel(tr.Context()))
	require.NoError(tr, err)
	v := traffic.Summarize(reports)
	tr.row.requests += v.Requests
	tr.row.failed += v.Failed
	tr.row.gap = max(tr.row.gap, v.Gap)
	for _, r := range reports {
		tr.row.certificates += len(r.Serials)
	}
	assert.NotZero(tr, v.Requests)
	if tr.mayLose == "" {
		assert.Zero(tr, v.Failed, "requests through the trial's own edge: %s", v)
	} else {
		tr.Logf("requests may fail: %s\n%s", tr.mayLose, v)
	}
}

// pods lists the edge's pods.
func (o *own) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := cluster.Client.CoreV1().Pods(o.edge.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=edge"})
	if err == nil && len(list.Items) == 0 {
		err = errors.New("no edge pods in namespace " + o.edge.Namespace)
	}
	return list.Items, err
}

// restarts are those of the containers of the edge's pods, by name.
func (o *own) restarts(ctx context.Context, tr *Trial) map[string]int32 {
	tr.Helper()
	pods, err := o.pods(ctx)
	require.NoError(tr, err)
	found := map[string]int32{}
	for i := range pods {
		for _, s := range statuses(&pods[i]) {
			found[s.Name] += s.RestartCount
		}
	}
	return found
}

// statuses are those of a pod's containers, native sidecars first.
func statuses(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// running is the id of a pod's container; empty where it does not run.
func running(pod *corev1.Pod, name string) string {
	for _, s := range statuses(pod) {
		if s.Name == name && s.State.Running != nil {
			return s.ContainerID
		}
	}
	return ""
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
