//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/test/framework/pods"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// toggles is how often the label changes: it goes round enabled, disabled, removed.
const toggles = 102

// came is how a pod came out.
type came struct {
	asked, answered time.Time
	injected        bool
}

// spell is a time in which the API server sees one value of the label and no other:
// from when a pod came out by it until it was changed again.
type spell struct {
	from, until time.Time
	enabled     bool
}

// The label of a namespace changes all the time while pods are asked for and an edge
// lives in it: each pod is injected, or is not, by what the label was when the API
// server created it, none is half injected, and the edge keeps its Secret.
func labelToggled(ctx context.Context, tr *Trial) {
	tr.namespace(tr.Namespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, nil)
	edge := pods.Edge("living")
	tr.Deploy(tr.Namespace, edge, 1)
	ledger := tr.Follow(tr.Namespace, "default")
	tr.await("an edge with its Secret", func(ctx context.Context) error {
		if err := standing(ledger, ""); err != nil {
			return err
		}
		return ready(ctx, tr.Namespace, "living", true)
	})

	asking, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	seen := make([][]came, 2)
	broken := make([]error, len(seen))
	var between []error
	for i := range seen {
		done.Go(func() { seen[i], broken[i] = askOn(asking, tr.Namespace) })
	}
	var quiet []spell
	for i := range toggles {
		value := []string{`"disabled"`, `null`, `"enabled"`}[i%3]
		if len(quiet) > 0 {
			quiet[len(quiet)-1].until = time.Now()
		}
		tr.label(value)
		enabled := value == `"enabled"`
		tr.await("a pod by the label's new value", func(ctx context.Context) error {
			if c, err := ask(ctx, tr.Namespace); err != nil || c.injected != enabled {
				return fmt.Errorf("with label %s a pod comes out injected: %t, %w", value, c.injected, err)
			}
			return nil
		})
		quiet = append(quiet, spell{from: time.Now(), enabled: enabled})
		if _, err := ask(ctx, tr.Namespace); err != nil { // so that it lasts for a moment
			between = append(between, err)
		}
	}
	quiet[len(quiet)-1].until = time.Now()
	stop()
	done.Wait()
	for _, err := range slices.Concat(broken, between) {
		assert.NoError(tr, err)
	}
	tr.judgeLabels(quiet, seen)
	for _, e := range ledger.Versions() {
		assert.False(tr, e.Deleted, "the Secret of a living edge was removed")
	}

	// The end is as quiet as before: opted in, and then out for good.
	tr.Heal("label", func(ctx context.Context) error { return ready(ctx, tr.Namespace, "living", true) })
	tr.label(`null`)
	require.NoError(tr, cluster.Client.AppsV1().Deployments(tr.Namespace).Delete(ctx, "living", metav1.DeleteOptions{}))
	tr.Heal("opted out", func(context.Context) error {
		if entries := ledger.Versions(); !entries[len(entries)-1].Deleted {
			return fmt.Errorf("the Secret of namespace %s is there still", tr.Namespace)
		}
		return nil
	})
}

// judgeLabels compares the pods with the label, where it is known what it was.
func (tr *Trial) judgeLabels(quiet []spell, seen [][]came) {
	tr.Helper()
	asked, judged := 0, 0
	for _, some := range seen {
		asked += len(some)
		at := 0
		for _, c := range some {
			for at < len(quiet) && quiet[at].until.Before(c.asked) {
				at++
			}
			if at == len(quiet) || c.asked.Before(quiet[at].from) || c.answered.After(quiet[at].until) {
				continue
			}
			judged++
			if c.injected != quiet[at].enabled {
				tr.row.wrong++
				tr.Errorf("the label was enabled: %t, and a pod asked for at %s came out injected: %t", quiet[at].enabled, c.asked.Format(time.StampMilli), c.injected)
			}
		}
	}
	tr.Logf("%d changes of the label, %d pods asked for meanwhile, %d of them while it was one value for sure", toggles, asked, judged)
	assert.NotZero(tr, judged)
}

// label sets the label of the trial's namespace to a JSON value.
func (tr *Trial) label(value string) {
	tr.Helper()
	patch := fmt.Sprintf(`{"metadata": {"labels": {%q: %s}}}`, policy.InjectionLabel, value)
	_, err := cluster.Client.CoreV1().Namespaces().Patch(tr.Context(), tr.Namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(tr, err)
}

// askOn asks for pods until ctx ends.
func askOn(ctx context.Context, namespace string) (all []came, err error) {
	for ctx.Err() == nil {
		c, err := ask(context.WithoutCancel(ctx), namespace)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

// ask asks for a pod, which is not stored.
func ask(ctx context.Context, namespace string) (came, error) {
	c := came{asked: time.Now()}
	pod, err := cluster.Client.CoreV1().Pods(namespace).Create(ctx, pods.Edge("toggled"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	c.answered = time.Now()
	if err != nil {
		return c, err
	}
	c.injected = pod.Labels[policy.InjectedLabel] != ""
	return c, whole(pod, c.injected)
}

// whole says what of an injection a pod has that it should not have, or lacks.
func whole(pod *corev1.Pod, injected bool) error {
	marks := map[string]bool{
		"sidecar":           len(pod.Spec.InitContainers) == 1,
		"mount":             len(pod.Spec.Containers[0].VolumeMounts) > len(withoutMounts(pod)),
		"status annotation": pod.Annotations[policy.StatusKey] != "",
	}
	for mark, has := range marks {
		if has != injected {
			return fmt.Errorf("a pod is injected: %t, and has the %s: %t", injected, mark, has)
		}
	}
	return nil
}

// withoutMounts are the mounts that the API server adds itself.
func withoutMounts(pod *corev1.Pod) (own []corev1.VolumeMount) {
	for _, m := range pod.Spec.Containers[0].VolumeMounts {
		if m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" {
			own = append(own, m)
		}
	}
	return own
}
