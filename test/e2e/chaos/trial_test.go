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
	// patience is how long anything may take on a busy machine.
	patience = 5 * time.Minute
	// often is how often conditions are looked at.
	often = 100 * time.Millisecond
	// steady is after how many requests without a failure a fault may come.
	steady = 40
	// trialPrefix begins the names of the trials' namespaces.
	trialPrefix = "trial-"
)

// Trial is one fault, and what goes on beside it.
type Trial struct {
	*testing.T
	// Namespace is the trial's own, opted in, and goes with it.
	Namespace string
	// Pods asks for pods in it all the time, which are not stored.
	Pods *pods.Creator

	row    row
	ledger []*environment.SecretHistory
	// mayLose and mayWait say why requests may fail and pods may have to wait; where
	// they say nothing, none may.
	mayLose, mayWait string
}

// trial breaks something: the body returns when it is whole again, as far as it
// knows, and is judged by what was lost until then. From then on nothing may be lost,
// whatever the fault was, and a new edge has to start.
func trial(t *testing.T, name string, body func(context.Context, *Trial)) {
	t.Helper()
	tr := &Trial{T: t, Namespace: fmt.Sprintf("%s%d", trialPrefix, len(results.rows)+1), row: row{trial: name}}
	begun := time.Now()
	defer func() {
		if tr.Pods != nil {
			tr.judge()
			tr.Pods.Stop()
		}
		tr.row.took = time.Since(begun)
		tr.row.failure = failure(t.Failed())
		results.rows = append(results.rows, tr.row)
	}()
	tr.namespace(tr.Namespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, nil)
	tr.await("everything works before the fault", tr.whole)
	for _, edge := range edges.Edges {
		tr.Follow(edge.Namespace, edge.Account)
	}
	tr.Pods = pods.Start(cluster.Client, tr.Namespace, pods.Edge("asked"), often)
	tr.flows("before the fault")
	tr.clear()
	begun = time.Now()
	body(t.Context(), tr)
	tr.judge()
	tr.mayLose, tr.mayWait = "", ""
	tr.Launch("after", pods.Edge("after"))
	secrets := tr.Follow(tr.Namespace, "default")
	tr.await("its Secret", func(context.Context) error {
		if secrets.Current() == nil {
			return fmt.Errorf("there is no Secret in namespace %s", tr.Namespace)
		}
		return nil
	})
	tr.flows("after the fault")
}

// MayLose says why requests may fail until the body returns; otherwise none may.
func (tr *Trial) MayLose(why string) { tr.mayLose = why }

// MayWait says why pods may have to be asked for again until the body returns;
// otherwise none may.
func (tr *Trial) MayWait(why string) { tr.mayWait = why }

// flows waits until everything is up, and pods come out injected.
func (tr *Trial) flows(when string) {
	tr.Helper()
	tr.await("everything is up "+when, tr.whole)
	before := tr.Pods.Snapshot().Injected
	tr.await("pods come out injected "+when, func(context.Context) error {
		if seen := tr.Pods.Snapshot(); seen.Injected < before+5 {
			return errors.New(seen.String())
		}
		return nil
	})
}

// Heal waits until is returns nil, and notes how long that took.
func (tr *Trial) Heal(what string, is func(context.Context) error) {
	tr.Helper()
	begun := time.Now()
	tr.await(what, is)
	took := time.Since(begun)
	tr.row.healed = append(tr.row.healed, fmt.Sprintf("%s %.1fs", what, took.Seconds()))
}

// await waits until is returns nil; what it said last is the failure.
func (tr *Trial) await(what string, is func(context.Context) error) {
	tr.Helper()
	var last error
	err := wait.PollUntilContextTimeout(tr.Context(), often, patience, true, func(ctx context.Context) (bool, error) {
		last = is(ctx)
		return last == nil, nil
	})
	require.NoError(tr, errors.Join(err, last), what)
}

// Launch starts a workload of one pod in the trial's namespace, and notes how long it
// takes until it is ready, injected.
func (tr *Trial) Launch(what string, pod *corev1.Pod) {
	tr.Helper()
	pod.Labels["app"] = what
	tr.Deploy(tr.Namespace, pod, 1)
	tr.Heal("new edge", func(ctx context.Context) error { return ready(ctx, tr.Namespace, what, true) })
}

// Deploy creates a workload of pods like this one.
func (tr *Trial) Deploy(namespace string, pod *corev1.Pod, replicas int32) {
	tr.Helper()
	tr.await("create the workload", func(ctx context.Context) error {
		_, err := cluster.Client.AppsV1().Deployments(namespace).Create(ctx, pods.Deployment(pod, replicas), metav1.CreateOptions{})
		return err
	})
}

// ready says what is missing until all pods of a workload are ready, each injected or
// none.
func ready(ctx context.Context, namespace, name string, injected bool) error {
	d, err := cluster.Client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := unrolled(d); err != nil {
		return err
	}
	list, err := cluster.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
	if err != nil {
		return err
	}
	for i := range list.Items {
		if has := list.Items[i].Labels[policy.InjectedLabel] != ""; has != injected {
			return fmt.Errorf("pod %s/%s is injected: %t", namespace, list.Items[i].Name, has)
		}
	}
	return nil
}

// unrolled says what is missing until a workload is rolled out.
func unrolled(d *appsv1.Deployment) error {
	s, want := d.Status, *d.Spec.Replicas
	if s.ObservedGeneration < d.Generation || s.UpdatedReplicas < want || s.AvailableReplicas < want || s.Replicas > want {
		return fmt.Errorf("deployment %s/%s is not rolled out: %d of %d are available", d.Namespace, d.Name, s.AvailableReplicas, want)
	}
	return nil
}

// whole says what is missing until everything that trials break is up.
func (*Trial) whole(ctx context.Context) error {
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
			if err := unrolled(&list.Items[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Follow judges every version of an identity's Secret from now on.
func (tr *Trial) Follow(namespace, account string) *environment.SecretHistory {
	tr.Helper()
	l := (&environment.Environment{Kube: cluster.Client}).WatchSecret(tr, namespace, environment.Identity(tr, namespace, account))
	tr.ledger = append(tr.ledger, l)
	return l
}

// namespace creates one, and removes it with the trial.
func (tr *Trial) namespace(name string, labels, annotations map[string]string) {
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

// clear waits until none of some requests in a row has failed or takes long, so that
// nothing of an earlier fault counts, and begins to count anew.
func (tr *Trial) clear() {
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
			if slow := r.Until.Sub(r.Oldest); r.Requests < steady || slow > time.Second {
				return fmt.Errorf("edge %s answered %d requests, the oldest under way is of %s ago", name, r.Requests, slow)
			}
		}
		return nil
	})
	require.NoError(tr, edges.Reset(tr.Context()))
	tr.Pods.Drain()
}

// judge enters into the row what there was since the last time, and whether it may
// have been.
func (tr *Trial) judge() {
	tr.Helper()
	count := tr.Pods.Drain()
	tr.Log(count)
	tr.row.pods += count.Requested
	tr.row.waited += count.Failed()
	tr.row.wrong += count.NotInjected
	assert.Zero(tr, count.NotInjected, "pods came out without an injection")
	if tr.mayWait == "" {
		assert.Zero(tr, count.Failed(), "pods were refused or unanswered: %s", count)
	} else {
		tr.Logf("pods may wait: %s", tr.mayWait)
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
	if tr.mayLose == "" {
		assert.Equal(tr, before, verdict.Failed, "requests failed")
	} else {
		tr.Logf("requests may fail: %s", tr.mayLose)
	}
	for _, l := range tr.ledger {
		assert.Empty(tr, l.InvalidVersions(), "versions of a Secret that are no bundle")
	}
}
