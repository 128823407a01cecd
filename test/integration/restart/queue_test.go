package restart

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/internal/restart"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// restartRecorder records the restarts of Deployments, in the order of the API server's
// changes.
type restartRecorder struct {
	mu sync.Mutex
	// order is the order of the restarts, and maxConcurrent the largest number of
	// Deployments that were restarted and not rolled out at the same time.
	order         []string
	maxConcurrent int
}

// recordRestarts watches the Deployments of the namespace until the test ends.
func (env *environment) recordRestarts() *restartRecorder {
	env.t.Helper()
	list, err := kube.AppsV1().Deployments(env.namespace).List(env.t.Context(), metav1.ListOptions{})
	require.NoError(env.t, err)
	changes, err := kube.AppsV1().Deployments(env.namespace).Watch(context.Background(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	require.NoError(env.t, err)
	env.t.Cleanup(changes.Stop)
	r := &restartRecorder{}
	go r.run(changes)
	return r
}

func (r *restartRecorder) run(changes watch.Interface) {
	unfinished := map[string]bool{}
	for change := range changes.ResultChan() {
		d, ok := change.Object.(*appsv1.Deployment)
		if !ok || !isRestarted(d) {
			continue
		}
		r.mu.Lock()
		if !slices.Contains(r.order, d.Name) {
			r.order = append(r.order, d.Name)
		}
		unfinished[d.Name] = !isRolledOut(d)
		rolling := 0
		for _, isRolling := range unfinished {
			if isRolling {
				rolling++
			}
		}
		r.maxConcurrent = max(r.maxConcurrent, rolling)
		r.mu.Unlock()
	}
}

func (r *restartRecorder) result() (order []string, maxConcurrent int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.order), r.maxConcurrent
}

// podsWithSidecar matches the pods of the namespace with the sidecar of a version.
func (env *environment) podsWithSidecar(version string) func(*corev1.Pod) bool {
	return func(pod *corev1.Pod) bool { return pod.Namespace == env.namespace && hasSidecar(pod, version) }
}

// first waits until one of the Deployments has been restarted, and returns it and the
// others.
func (env *environment) first(names ...string) (first string, others []string) {
	env.t.Helper()
	require.Eventually(env.t, func() bool {
		for i, name := range names {
			if isRestarted(env.deployment(name)) {
				first, others = name, slices.Delete(slices.Clone(names), i, i+1)
				return true
			}
		}
		return false
	}, waitTimeout, pollInterval, "none of %v was restarted", names)
	return first, others
}

func TestOneAtATime(t *testing.T) {
	env := newEnvironment(t)
	env.deploy("a", "b", "c")
	l := env.recordRestarts()
	resume := kubelet.hold(env.podsWithSidecar(newer))
	env.upgrade(newer)

	// All pods are stale, one workload is restarted, and its rollout does not proceed.
	first, others := env.first("a", "b", "c")
	note := env.awaitEvent("Deployment", first, "Restarted")
	assert.Contains(t, note, env.deployment(first).Annotations[policy.RestartedForKey])
	assert.Equal(t, first, readRecord(t)["name"])
	env.awaitQueue(2, 1, 0)
	for _, name := range others {
		assert.False(t, isRestarted(env.deployment(name)), name)
		assert.True(t, env.allPodsHaveSidecar(name, older), name)
	}

	resume()
	for _, name := range []string{"a", "b", "c"} {
		env.awaitSidecar(name, newer)
		env.awaitEvent("Deployment", name, "RestartCompleted")
		assert.Equal(t, 2, env.revisions(name), "%s was restarted once", name)
	}
	env.awaitQueue(0, 0, 0)
	env.awaitMetric("isthmus_restarts_total", "result", "started", 3)
	env.awaitMetric("isthmus_restarts_total", "result", "completed", 3)
	order, maxConcurrent := l.result()
	assert.Len(t, order, 3)
	assert.Equal(t, 1, maxConcurrent, "the number of rollouts at the same time")
	assert.Empty(t, readRecord(t))
	env.awaitMetric("isthmus_edge_pods", "state", "stale", -1)
}

// A stale pod has Events, whether restarts are on or not.
func TestStalePodsHaveEvents(t *testing.T) {
	env := newEnvironment(t)
	env.createDeployment("a", map[string]string{policy.RestartKey: "false"}, func(*appsv1.Deployment) {})
	env.awaitRollout("a")
	env.upgrade(newer)
	pod := env.pods("a")[0]
	note := env.awaitEvent("Pod", pod.Name, "stale-template")
	assert.Contains(t, note, `or have the controller do so: isthmus.dev/restart-when-stale: "true" on the workload or the namespace`)
	env.awaitEvent("ReplicaSet", metav1.GetControllerOf(&pod).Name, "stale-template")
	env.awaitMetric("isthmus_edge_pods", "state", "stale", 2)
	assert.False(t, isRestarted(env.deployment("a")))
}

func TestARolloutThatFailsStopsTheQueue(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*restart.Options)
		spec   func(*appsv1.Deployment)
		note   string
	}{
		"if it takes too long, expect an Event that says so": {
			func(r *restart.Options) { r.Timeout = time.Second }, func(*appsv1.Deployment) {}, "(after 1s)",
		},
		"if its own deadline is exceeded, expect an Event that says so": {
			func(*restart.Options) {}, func(d *appsv1.Deployment) { *d.Spec.ProgressDeadlineSeconds = 1 }, "its progress deadline is exceeded",
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnvironment(t)
			env.createDeployment("a", nil, c.spec)
			env.createDeployment("b", nil, c.spec)
			env.awaitRollout("a")
			env.awaitRollout("b")
			resume := kubelet.hold(env.podsWithSidecar(newer))
			env.upgrade(newer, c.change)

			first, others := env.first("a", "b")
			note := env.awaitEvent("Deployment", first, "RestartStuck")
			assert.Contains(t, note, c.note)
			assert.Contains(t, note, "No other workload is restarted")
			env.awaitQueue(1, 0, 1)
			env.awaitMetric("isthmus_restarts_total", "result", "stuck", 1)
			assert.False(t, isRestarted(env.deployment(others[0])))
			assert.True(t, env.allPodsHaveSidecar(others[0], older))

			resume()
			env.awaitSidecar("a", newer)
			env.awaitSidecar("b", newer)
			env.awaitQueue(0, 0, 0)
		})
	}
}

func TestAWorkloadThatDeclinesIsReleased(t *testing.T) {
	env := newEnvironment(t)
	env.deploy("a", "b")
	resume := kubelet.hold(env.podsWithSidecar(newer))
	env.upgrade(newer, func(r *restart.Options) { r.Timeout = time.Second })
	first, others := env.first("a", "b")
	env.awaitEvent("Deployment", first, "RestartStuck")
	t.Cleanup(kubelet.hold(func(pod *corev1.Pod) bool { return env.podsWithSidecar(newer)(pod) && pod.Labels["app"] == first }))
	resume()

	env.annotate(first, policy.RestartKey, "false")
	assert.Contains(t, env.awaitEvent("Deployment", first, "RestartReleased"), "it no longer asks for a restart")
	env.awaitSidecar(others[0], newer)
	env.awaitQueue(0, 0, 0)
	assert.Equal(t, 2, env.revisions(first))
}

func TestLeaderChangesInTheMiddle(t *testing.T) {
	env := newEnvironment(t)
	env.deploy("a", "b", "c")
	l := env.recordRestarts()
	resume := kubelet.hold(env.podsWithSidecar(newer))
	env.upgrade(newer)
	name, _ := env.first("a", "b", "c")
	first := env.deployment(name)

	env.startController(newer)
	env.awaitQueue(2, 1, 0)
	env.awaitMetric("isthmus_edge_pods", "state", "stale", 6)
	order, _ := l.result()
	assert.Equal(t, []string{name}, order, "the next leader waits for the rollout that the previous one started")

	resume()
	for _, name := range []string{"a", "b", "c"} {
		env.awaitSidecar(name, newer)
	}
	env.awaitQueue(0, 0, 0)
	_, maxConcurrent := l.result()
	assert.Equal(t, 1, maxConcurrent)
	for _, name := range []string{"a", "b", "c"} {
		assert.Equal(t, 2, env.revisions(name), "%s was restarted once", name)
	}
	assert.Equal(t, first.Spec.Template.Annotations, env.deployment(name).Spec.Template.Annotations)
	env.awaitMetric("isthmus_restarts_total", "result", "completed", 3)
}

// The leader ends after it has written the record and before the restart.
func TestARecordWithoutARestartIsDiscarded(t *testing.T) {
	env := newEnvironment(t)
	env.deploy("a", "b")
	m, err := kube.CoreV1().ConfigMaps(release).Get(t.Context(), restart.ConfigMapName, metav1.GetOptions{})
	require.NoError(t, err)
	m.Data = map[string]string{
		"kind": "Deployment", "namespace": env.namespace, "name": "b", "uid": string(env.deployment("b").UID), "template": "0123456789abcdef", "at": "2026-01-01T00:00:00Z",
	}
	_, err = kube.CoreV1().ConfigMaps(release).Update(t.Context(), m, metav1.UpdateOptions{})
	require.NoError(t, err)
	env.upgrade(newer)
	env.awaitSidecar("a", newer)
	env.awaitSidecar("b", newer)
	env.awaitQueue(0, 0, 0)
	assert.Equal(t, 2, env.revisions("b"))
}

// The webhook still injects the old template although it is rolled out.
func TestAnOldWebhookCausesNoRestartLoop(t *testing.T) {
	env := newEnvironment(t)
	env.deploy("a", "b")
	env.startController(newer)
	first, others := env.first("a", "b")
	note := env.awaitEvent("Deployment", first, "RestartFailed")
	assert.Contains(t, note, "still has stale pods")
	env.awaitQueue(1, 0, 1)
	env.awaitMetric("isthmus_restarts_total", "result", "failed", 1)
	assert.Equal(t, 2, env.revisions(first), "restarted once")
	assert.False(t, isRestarted(env.deployment(others[0])))

	// The next leader does not restart it either.
	env.startController(newer)
	env.awaitQueue(1, 0, 1)
	env.awaitMetric("isthmus_restarts_total", "result", "failed", 1)
	assert.Equal(t, 2, env.revisions(first))
	assert.False(t, isRestarted(env.deployment(others[0])))

	env.webhookEngine.Store(engine(t, newer))
	require.NoError(t, kube.CoreV1().Pods(env.namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=" + first}))
	env.awaitSidecar("a", newer)
	env.awaitSidecar("b", newer)
	env.awaitQueue(0, 0, 0)
	assert.Equal(t, 2, env.revisions(first))
}

// The new template's pods do not start, and the chart is rolled back.
func TestARollbackReplacesAStuckRollout(t *testing.T) {
	env := newEnvironment(t)
	env.deploy("a", "b")
	t.Cleanup(kubelet.hold(env.podsWithSidecar(newer)))
	env.upgrade(newer, func(r *restart.Options) { r.Timeout = time.Second })
	first, others := env.first("a", "b")
	env.awaitEvent("Deployment", first, "RestartStuck")

	env.upgrade(older)
	env.awaitSidecar(first, older)
	env.awaitQueue(0, 0, 0)
	assert.Equal(t, 3, env.revisions(first), "once for each template")
	assert.Equal(t, 1, env.revisions(others[0]))
	assert.False(t, isRestarted(env.deployment(others[0])))
}
