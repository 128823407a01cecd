//go:build chaos

package chaos

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/test/framework/pods"
	"github.com/isthmus-mesh/isthmus/test/framework/traffic"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	// timeout limits each wait, with room for a busy machine.
	timeout = 5 * time.Minute
	// pollInterval is the time between two checks of a condition.
	pollInterval = 100 * time.Millisecond
	// requestsBeforeFault is the number of requests without a failure before a fault.
	requestsBeforeFault = 40
	// trialPrefix begins the names of the trials' namespaces.
	trialPrefix = "trial-"
)

// Trial is one fault, with the traffic and the pods that show its effect.
type Trial struct {
	*testing.T
	// Namespace is the trial's own. It is opted in, and deleted with the trial.
	Namespace string
	// Pods creates pods in Namespace all the time, in dry runs.
	Pods *pods.Creator

	row       row
	histories []*environment.SecretHistory
	// failuresExpected and refusalsExpected are the reasons why requests may fail and pods
	// may be refused; if they are empty, none may.
	failuresExpected, refusalsExpected string
}

// trial runs a trial. run introduces the fault and returns when the cluster has recovered.
// The requests and pods that were lost until then are recorded. After that none may be lost,
// whatever the fault was, and a new edge has to start.
func trial(t *testing.T, name string, run func(context.Context, *Trial)) {
	t.Helper()
	tr := &Trial{T: t, Namespace: fmt.Sprintf("%s%d", trialPrefix, len(results.rows)+1), row: row{trial: name}}
	start := time.Now()
	defer func() {
		if tr.Pods != nil {
			tr.recordResults()
			tr.Pods.Stop()
		}
		tr.row.took = time.Since(start)
		tr.row.failure = failure(t.Failed())
		results.rows = append(results.rows, tr.row)
	}()
	tr.createNamespace(tr.Namespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, nil)
	tr.await("everything works before the fault", tr.checkHealthy)
	for _, edge := range edges.Edges {
		tr.WatchSecret(edge.Namespace, edge.Account)
	}
	tr.Pods = pods.Start(cluster.Client, tr.Namespace, pods.Edge("asked"), pollInterval)
	tr.awaitTraffic("before the fault")
	tr.awaitCleanTraffic()
	start = time.Now()
	run(t.Context(), tr)
	tr.recordResults()
	tr.failuresExpected, tr.refusalsExpected = "", ""
	tr.StartEdge("after", pods.Edge("after"))
	secrets := tr.WatchSecret(tr.Namespace, "default")
	tr.await("the new edge has a Secret", func(context.Context) error {
		if secrets.Current() == nil {
			return fmt.Errorf("namespace %s has no Secret", tr.Namespace)
		}
		return nil
	})
	tr.awaitTraffic("after the fault")
}

// ExpectFailedRequests says why requests may fail until run returns; by default none may.
func (tr *Trial) ExpectFailedRequests(reason string) { tr.failuresExpected = reason }

// ExpectRefusedPods says why pods may be refused until run returns; by default none may.
func (tr *Trial) ExpectRefusedPods(reason string) { tr.refusalsExpected = reason }

// awaitTraffic waits until everything is ready, and pods are injected.
func (tr *Trial) awaitTraffic(when string) {
	tr.Helper()
	tr.await("everything is up "+when, tr.checkHealthy)
	before := tr.Pods.Snapshot().Injected
	tr.await("pods are injected "+when, func(context.Context) error {
		if seen := tr.Pods.Snapshot(); seen.Injected < before+5 {
			return errors.New(seen.String())
		}
		return nil
	})
}

// AwaitRecovery waits until check returns nil, and records how long that took.
func (tr *Trial) AwaitRecovery(description string, check func(context.Context) error) {
	tr.Helper()
	start := time.Now()
	tr.await(description, check)
	took := time.Since(start)
	tr.row.recoveries = append(tr.row.recoveries, fmt.Sprintf("%s %.1fs", description, took.Seconds()))
}

// await waits until check returns nil; its last error is the failure.
func (tr *Trial) await(description string, check func(context.Context) error) {
	tr.Helper()
	var last error
	err := wait.PollUntilContextTimeout(tr.Context(), pollInterval, timeout, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	require.NoError(tr, errors.Join(err, last), description)
}

// StartEdge starts a workload of one pod in the trial's namespace, and records how long it
// takes until it is ready and injected.
func (tr *Trial) StartEdge(name string, pod *corev1.Pod) {
	tr.Helper()
	pod.Labels["app"] = name
	tr.CreateWorkload(tr.Namespace, pod, 1)
	tr.AwaitRecovery("new edge", func(ctx context.Context) error { return checkReady(ctx, tr.Namespace, name, true) })
}

// CreateWorkload creates a Deployment of pods like this one.
func (tr *Trial) CreateWorkload(namespace string, pod *corev1.Pod, replicas int32) {
	tr.Helper()
	tr.await("create the workload", func(ctx context.Context) error {
		_, err := cluster.Client.AppsV1().Deployments(namespace).Create(ctx, pods.Deployment(pod, replicas), metav1.CreateOptions{})
		return err
	})
}

// checkReady returns an error until all pods of a workload are ready, and all of them are
// injected or none.
func checkReady(ctx context.Context, namespace, name string, injected bool) error {
	d, err := cluster.Client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := checkRolledOut(d); err != nil {
		return err
	}
	list, err := cluster.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
	if err != nil {
		return err
	}
	for i := range list.Items {
		if present := list.Items[i].Labels[policy.InjectedLabel] != ""; present != injected {
			return fmt.Errorf("pod %s/%s is injected: %t", namespace, list.Items[i].Name, present)
		}
	}
	return nil
}

// checkRolledOut returns an error until a Deployment is rolled out.
func checkRolledOut(d *appsv1.Deployment) error {
	s, want := d.Status, *d.Spec.Replicas
	if s.ObservedGeneration < d.Generation || s.UpdatedReplicas < want || s.AvailableReplicas < want || s.Replicas > want {
		return fmt.Errorf("deployment %s/%s is not rolled out: %d of %d are available", d.Namespace, d.Name, s.AvailableReplicas, want)
	}
	return nil
}

// checkHealthy returns an error until everything that trials break is rolled out.
func (*Trial) checkHealthy(ctx context.Context) error {
	namespaces := []string{node.Namespace, node.IstioNamespace, edges.Namespace}
	for _, edge := range edges.Edges {
		namespaces = append(namespaces, edge.Namespace)
	}
	for _, namespace := range namespaces {
		list, err := cluster.Client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			if err := checkRolledOut(&list.Items[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// WatchSecret validates every version of an identity's Secret from now on.
func (tr *Trial) WatchSecret(namespace, account string) *environment.SecretHistory {
	tr.Helper()
	history := (&environment.Environment{Kube: cluster.Client}).WatchSecret(tr, namespace, environment.Identity(tr, namespace, account))
	tr.histories = append(tr.histories, history)
	return history
}

// createNamespace creates a namespace, and deletes it with the trial.
func (tr *Trial) createNamespace(name string, labels, annotations map[string]string) {
	tr.Helper()
	_, err := cluster.Client.CoreV1().Namespaces().Create(tr.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations},
	}, metav1.CreateOptions{})
	require.NoError(tr, err)
	tr.Cleanup(func() {
		if err := cluster.Client.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			tr.Errorf("remove namespace %s: %v", name, err)
		}
	})
}

// awaitCleanTraffic waits until none of several requests in a row has failed or takes long,
// so that no effect of an earlier fault counts, and resets the counts.
func (tr *Trial) awaitCleanTraffic() {
	tr.Helper()
	require.NoError(tr, edges.Reset(tr.Context()))
	tr.await("requests flow before the fault", func(ctx context.Context) error {
		reports, err := edges.Report(ctx)
		if err != nil {
			return err
		}
		if v := traffic.Summarize(reports); v.Failed > 0 {
			return errors.Join(errors.New(v.String()), edges.Reset(ctx))
		}
		for name, r := range reports {
			if slow := r.Until.Sub(r.Oldest); r.Requests < requestsBeforeFault || slow > time.Second {
				return fmt.Errorf("edge %s answered %d requests, the oldest request in flight is %s old", name, r.Requests, slow)
			}
		}
		return nil
	})
	require.NoError(tr, edges.Reset(tr.Context()))
	tr.Pods.Drain()
}

// recordResults adds the results since the last call to the row. It fails if requests or
// pods were lost that the trial does not expect to lose.
func (tr *Trial) recordResults() {
	tr.Helper()
	count := tr.Pods.Drain()
	tr.Log(count)
	tr.row.pods += count.Requested
	tr.row.waited += count.Failed()
	tr.row.wrong += count.NotInjected
	assert.Zero(tr, count.NotInjected, "pods were created without an injection")
	if tr.refusalsExpected == "" {
		assert.Zero(tr, count.Failed(), "pods were refused or unanswered: %s", count)
	} else {
		tr.Logf("pods may be refused: %s", tr.refusalsExpected)
	}
	reports, err := edges.Report(context.WithoutCancel(tr.Context()))
	assert.NoError(tr, err)
	before, verdict := tr.row.failed, traffic.Summarize(reports)
	tr.Log(verdict)
	tr.row.requests, tr.row.failed, tr.row.gap, tr.row.certificates = verdict.Requests, verdict.Failed, verdict.Gap, 0
	for name, r := range reports {
		tr.row.certificates += len(r.Serials)
		assert.NotZero(tr, r.Requests, "requests went through edge %s", name)
	}
	if tr.failuresExpected == "" {
		assert.Equal(tr, before, verdict.Failed, "requests failed")
	} else {
		tr.Logf("requests may fail: %s", tr.failuresExpected)
	}
	for _, history := range tr.histories {
		assert.Empty(tr, history.InvalidVersions(), "invalid versions of a Secret")
	}
}
