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

// toggles is the number of changes of the label, which goes round enabled, disabled,
// removed.
const toggles = 102

// dryRunResult is a pod that was created in a dry run.
type dryRunResult struct {
	requested, answered time.Time
	injected            bool
}

// labelPeriod is a period in which the API server sees exactly one value of the label: from
// the first pod that shows the value until the next change.
type labelPeriod struct {
	from, until time.Time
	enabled     bool
}

// The label of a namespace changes all the time while pods are created and an edge runs in
// it. Each pod is injected or not, by the label's value when the API server created it; no
// pod is partly injected; the edge keeps its Secret.
func labelToggled(ctx context.Context, tr *Trial) {
	tr.createNamespace(tr.Namespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, nil)
	edge := pods.Edge("living")
	tr.CreateWorkload(tr.Namespace, edge, 1)
	history := tr.WatchSecret(tr.Namespace, "default")
	tr.await("the edge is ready and has a Secret", func(ctx context.Context) error {
		if err := checkSecretReplaced(history, ""); err != nil {
			return err
		}
		return checkReady(ctx, tr.Namespace, "living", true)
	})

	requesting, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	results := make([][]dryRunResult, 2)
	errs := make([]error, len(results))
	var errsBetween []error
	for i := range results {
		done.Go(func() { results[i], errs[i] = requestPods(requesting, tr.Namespace) })
	}
	var periods []labelPeriod
	for i := range toggles {
		value := []string{`"disabled"`, `null`, `"enabled"`}[i%3]
		if len(periods) > 0 {
			periods[len(periods)-1].until = time.Now()
		}
		tr.setLabel(value)
		enabled := value == `"enabled"`
		tr.await("a pod is injected by the label's new value", func(ctx context.Context) error {
			if c, err := requestPod(ctx, tr.Namespace); err != nil || c.injected != enabled {
				return fmt.Errorf("with label %s a pod is injected: %t, %w", value, c.injected, err)
			}
			return nil
		})
		periods = append(periods, labelPeriod{from: time.Now(), enabled: enabled})
		if _, err := requestPod(ctx, tr.Namespace); err != nil { // so that the period lasts for a moment
			errsBetween = append(errsBetween, err)
		}
	}
	periods[len(periods)-1].until = time.Now()
	stop()
	done.Wait()
	for _, err := range slices.Concat(errs, errsBetween) {
		assert.NoError(tr, err)
	}
	tr.assertLabelDecided(periods, results)
	for _, e := range history.Versions() {
		assert.False(tr, e.Deleted, "the Secret of a living edge was removed")
	}

	// In the end the edge still works when opted in, and its Secret is removed when opted
	// out.
	tr.AwaitRecovery("label", func(ctx context.Context) error { return checkReady(ctx, tr.Namespace, "living", true) })
	tr.setLabel(`null`)
	require.NoError(tr, cluster.Client.AppsV1().Deployments(tr.Namespace).Delete(ctx, "living", metav1.DeleteOptions{}))
	tr.AwaitRecovery("opted out", func(context.Context) error {
		if versions := history.Versions(); !versions[len(versions)-1].Deleted {
			return fmt.Errorf("the Secret of namespace %s still exists", tr.Namespace)
		}
		return nil
	})
}

// assertLabelDecided compares the pods with the label, for the periods in which its value is
// known.
func (tr *Trial) assertLabelDecided(periods []labelPeriod, results [][]dryRunResult) {
	tr.Helper()
	requested, compared := 0, 0
	for _, results := range results {
		requested += len(results)
		at := 0
		for _, c := range results {
			for at < len(periods) && periods[at].until.Before(c.requested) {
				at++
			}
			if at == len(periods) || c.requested.Before(periods[at].from) || c.answered.After(periods[at].until) {
				continue
			}
			compared++
			if c.injected != periods[at].enabled {
				tr.row.wrong++
				tr.Errorf("the label was enabled: %t, and a pod requested at %s was injected: %t", periods[at].enabled, c.requested.Format(time.StampMilli), c.injected)
			}
		}
	}
	tr.Logf("%d changes of the label, %d pods requested meanwhile, %d of them while its value was known", toggles, requested, compared)
	assert.NotZero(tr, compared)
}

// setLabel sets the label of the trial's namespace to a JSON value.
func (tr *Trial) setLabel(value string) {
	tr.Helper()
	patch := fmt.Sprintf(`{"metadata": {"labels": {%q: %s}}}`, policy.InjectionLabel, value)
	_, err := cluster.Client.CoreV1().Namespaces().Patch(tr.Context(), tr.Namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(tr, err)
}

// requestPods creates pods in dry runs until ctx ends.
func requestPods(ctx context.Context, namespace string) (all []dryRunResult, err error) {
	for ctx.Err() == nil {
		c, err := requestPod(context.WithoutCancel(ctx), namespace)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

// requestPod creates a pod in a dry run.
func requestPod(ctx context.Context, namespace string) (dryRunResult, error) {
	c := dryRunResult{requested: time.Now()}
	pod, err := cluster.Client.CoreV1().Pods(namespace).Create(ctx, pods.Edge("toggled"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	c.answered = time.Now()
	if err != nil {
		return c, err
	}
	c.injected = pod.Labels[policy.InjectedLabel] != ""
	return c, checkInjection(pod, c.injected)
}

// checkInjection returns an error if the pod has only some parts of an injection.
func checkInjection(pod *corev1.Pod, injected bool) error {
	marks := map[string]bool{
		"sidecar":           len(pod.Spec.InitContainers) == 1,
		"mount":             len(pod.Spec.Containers[0].VolumeMounts) > len(tokenMounts(pod)),
		"status annotation": pod.Annotations[policy.StatusKey] != "",
	}
	for mark, present := range marks {
		if present != injected {
			return fmt.Errorf("a pod is injected: %t, and has the %s: %t", injected, mark, present)
		}
	}
	return nil
}

// tokenMounts returns the mounts that the API server itself adds.
func tokenMounts(pod *corev1.Pod) (found []corev1.VolumeMount) {
	for _, m := range pod.Spec.Containers[0].VolumeMounts {
		if m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" {
			found = append(found, m)
		}
	}
	return found
}
