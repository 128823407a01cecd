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

// shortLifetime is the lifetime of a certificate that the agent rotates during a trial,
// after half of it.
const shortLifetime = "60s"

// publishingAnnotations are the annotations of a namespace in which agents and publishers
// write the Secret, with short certificates. They are set before the first pod: otherwise
// the controller's Secret would stay for most of its longer life.
var publishingAnnotations = map[string]string{policy.SourceKey: "agent", policy.CertTTLKey: shortLifetime}

// publishingEdge is an edge of a trial that carries requests, with the publisher in its
// pods.
type publishingEdge struct {
	*traffic.Traffic
	edge    traffic.Edge
	history *environment.SecretHistory
}

// deployPublishingEdge deploys a publishingEdge.
func (tr *Trial) deployPublishingEdge(ctx context.Context, replicas int) *publishingEdge {
	tr.Helper()
	t, err := traffic.Deploy(ctx, traffic.Options{
		Config: cluster.Admin, Prefix: tr.Namespace, Modes: []string{"sidecar"}, Replicas: replicas, Lifetime: lifetime,
		Annotations: publishingAnnotations,
	})
	tr.Cleanup(func() { assert.NoError(tr, t.Remove(context.Background())) })
	require.NoError(tr, err)
	e := &publishingEdge{Traffic: t, edge: t.Edges[0]}
	e.history = tr.WatchSecret(e.edge.Namespace, e.edge.Account)
	tr.await("the publisher has written the Secret", func(context.Context) error { return checkSecretReplaced(e.history, "") })
	require.Equal(tr, "agent", e.history.Current().Annotations[policy.SourceKey], "the writer of the Secret")
	require.NoError(tr, t.Reset(ctx))
	return e
}

// awaitRotation waits until the agent's next certificate is in the Secret.
func (e *publishingEdge) awaitRotation(tr *Trial, description string) {
	tr.Helper()
	serials := len(e.history.Serials())
	tr.AwaitRecovery(description, func(context.Context) error {
		if now := len(e.history.Serials()); now == serials {
			return fmt.Errorf("the Secret of namespace %s has had %d certificates", e.edge.Namespace, now)
		}
		return nil
	})
}

// recordTraffic adds the requests that were lost through this edge to the trial's row.
func (e *publishingEdge) recordTraffic(tr *Trial) {
	tr.Helper()
	reports, err := e.Report(context.WithoutCancel(tr.Context()))
	require.NoError(tr, err)
	v := traffic.Summarize(reports)
	tr.row.requests += v.Requests
	tr.row.failed += v.Failed
	tr.row.gap = max(tr.row.gap, v.Gap)
	for _, r := range reports {
		tr.row.certificates += len(r.Serials)
	}
	assert.NotZero(tr, v.Requests)
	if tr.failuresExpected == "" {
		assert.Zero(tr, v.Failed, "requests through the trial's edge: %s", v)
	} else {
		tr.Logf("requests may fail: %s\n%s", tr.failuresExpected, v)
	}
}

// pods lists the edge's pods.
func (e *publishingEdge) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := cluster.Client.CoreV1().Pods(e.edge.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=edge"})
	if err == nil && len(list.Items) == 0 {
		err = errors.New("no edge pods in namespace " + e.edge.Namespace)
	}
	return list.Items, err
}

// containerRestarts returns the restarts of the containers of the edge's pods, by name.
func (e *publishingEdge) containerRestarts(ctx context.Context, tr *Trial) map[string]int32 {
	tr.Helper()
	pods, err := e.pods(ctx)
	require.NoError(tr, err)
	found := map[string]int32{}
	for i := range pods {
		for _, s := range containerStatuses(&pods[i]) {
			found[s.Name] += s.RestartCount
		}
	}
	return found
}

// containerStatuses returns the statuses of a pod's containers, native sidecars first.
func containerStatuses(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// runningContainerID returns the ID of a pod's container; empty if it does not run.
func runningContainerID(pod *corev1.Pod, name string) string {
	for _, s := range containerStatuses(pod) {
		if s.Name == name && s.State.Running != nil {
			return s.ContainerID
		}
	}
	return ""
}

func isPodReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
