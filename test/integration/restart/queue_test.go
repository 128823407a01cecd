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

// ledger records the restarts of Deployments, in the order of the API server's
// changes.
type ledger struct {
	mu sync.Mutex
	// order is the order in which they were restarted, and most the largest number
	// of them that were restarted and not up at once.
	order []string
	most  int
}

// follow watches the Deployments of the world until the test ends.
func (w *world) follow() *ledger {
	w.t.Helper()
	list, err := kube.AppsV1().Deployments(w.space).List(w.t.Context(), metav1.ListOptions{})
	require.NoError(w.t, err)
	changes, err := kube.AppsV1().Deployments(w.space).Watch(context.Background(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	require.NoError(w.t, err)
	w.t.Cleanup(changes.Stop)
	l := &ledger{}
	go l.write(changes)
	return l
}

func (l *ledger) write(changes watch.Interface) {
	under := map[string]bool{}
	for change := range changes.ResultChan() {
		d, ok := change.Object.(*appsv1.Deployment)
		if !ok || !isRestarted(d) {
			continue
		}
		l.mu.Lock()
		if !slices.Contains(l.order, d.Name) {
			l.order = append(l.order, d.Name)
		}
		under[d.Name] = !isUp(d)
		rolling := 0
		for _, isRolling := range under {
			if isRolling {
				rolling++
			}
		}
		l.most = max(l.most, rolling)
		l.mu.Unlock()
	}
}

func (l *ledger) read() (order []string, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.order), l.most
}

// fresh are pods of a world that carry a version's sidecar.
func (w *world) fresh(version string) func(*corev1.Pod) bool {
	return func(pod *corev1.Pod) bool { return pod.Namespace == w.space && isOf(pod, version) }
}

// first waits until one of the Deployments was restarted, and returns it and the
// others.
func (w *world) first(names ...string) (first string, others []string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		for i, name := range names {
			if isRestarted(w.deployment(name)) {
				first, others = name, slices.Delete(slices.Clone(names), i, i+1)
				return true
			}
		}
		return false
	}, patience, tick, "none of %v was restarted", names)
	return first, others
}

func TestOneAtATime(t *testing.T) {
	w := newWorld(t)
	w.deploy("a", "b", "c")
	l := w.follow()
	letGo := kubelet.hold(w.fresh(newer))
	w.upgrade(newer)

	// All pods are found stale, one workload is restarted, and it does not get on.
	first, others := w.first("a", "b", "c")
	note := w.event("Deployment", first, "Restarted")
	assert.Contains(t, note, w.deployment(first).Annotations[policy.RestartedForKey])
	assert.Equal(t, first, record(t)["name"])
	w.queue(2, 1, 0)
	for _, name := range others {
		assert.False(t, isRestarted(w.deployment(name)), name)
		assert.True(t, w.carries(name, older), name)
	}

	letGo()
	for _, name := range []string{"a", "b", "c"} {
		w.rolled(name, newer)
		w.event("Deployment", name, "RestartCompleted")
		assert.Equal(t, 2, w.revisions(name), "%s was restarted once", name)
	}
	w.queue(0, 0, 0)
	w.reaches("isthmus_restarts_total", "result", "started", 3)
	w.reaches("isthmus_restarts_total", "result", "completed", 3)
	order, most := l.read()
	assert.Len(t, order, 3)
	assert.Equal(t, 1, most, "how many were on their way at once")
	assert.Empty(t, record(t))
	w.reaches("isthmus_edge_pods", "state", "stale", -1)
}

// A stale pod has Events, whether restarts are on or not.
func TestStalePodsHaveEvents(t *testing.T) {
	w := newWorld(t)
	w.deployWith("a", map[string]string{policy.RestartKey: "false"}, func(*appsv1.Deployment) {})
	w.up("a")
	w.upgrade(newer)
	pod := w.pods("a")[0]
	note := w.event("Pod", pod.Name, "stale-template")
	assert.Contains(t, note, `or have the controller do so: isthmus.dev/restart-when-stale: "true" on the workload or the namespace`)
	w.event("ReplicaSet", metav1.GetControllerOf(&pod).Name, "stale-template")
	w.reaches("isthmus_edge_pods", "state", "stale", 2)
	assert.False(t, isRestarted(w.deployment("a")))
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
			w := newWorld(t)
			w.deployWith("a", nil, c.spec)
			w.deployWith("b", nil, c.spec)
			w.up("a")
			w.up("b")
			letGo := kubelet.hold(w.fresh(newer))
			w.upgrade(newer, c.change)

			first, others := w.first("a", "b")
			note := w.event("Deployment", first, "RestartStuck")
			assert.Contains(t, note, c.note)
			assert.Contains(t, note, "Nothing else is restarted")
			w.queue(1, 0, 1)
			w.reaches("isthmus_restarts_total", "result", "stuck", 1)
			assert.False(t, isRestarted(w.deployment(others[0])))
			assert.True(t, w.carries(others[0], older))

			letGo()
			w.rolled("a", newer)
			w.rolled("b", newer)
			w.queue(0, 0, 0)
		})
	}
}

func TestAWorkloadThatDeclinesIsReleased(t *testing.T) {
	w := newWorld(t)
	w.deploy("a", "b")
	letGo := kubelet.hold(w.fresh(newer))
	w.upgrade(newer, func(r *restart.Options) { r.Timeout = time.Second })
	first, others := w.first("a", "b")
	w.event("Deployment", first, "RestartStuck")
	t.Cleanup(kubelet.hold(func(pod *corev1.Pod) bool { return w.fresh(newer)(pod) && pod.Labels["app"] == first }))
	letGo()

	w.annotate(first, policy.RestartKey, "false")
	assert.Contains(t, w.event("Deployment", first, "RestartReleased"), "it no longer asks for a restart")
	w.rolled(others[0], newer)
	w.queue(0, 0, 0)
	assert.Equal(t, 2, w.revisions(first))
}

func TestLeaderChangesInTheMiddle(t *testing.T) {
	w := newWorld(t)
	w.deploy("a", "b", "c")
	l := w.follow()
	letGo := kubelet.hold(w.fresh(newer))
	w.upgrade(newer)
	name, _ := w.first("a", "b", "c")
	first := w.deployment(name)

	w.lead(newer)
	w.queue(2, 1, 0)
	w.reaches("isthmus_edge_pods", "state", "stale", 6)
	order, _ := l.read()
	assert.Equal(t, []string{name}, order, "the next leader waits for what the one before began")

	letGo()
	for _, name := range []string{"a", "b", "c"} {
		w.rolled(name, newer)
	}
	w.queue(0, 0, 0)
	_, most := l.read()
	assert.Equal(t, 1, most)
	for _, name := range []string{"a", "b", "c"} {
		assert.Equal(t, 2, w.revisions(name), "%s was restarted once", name)
	}
	assert.Equal(t, first.Spec.Template.Annotations, w.deployment(name).Spec.Template.Annotations)
	w.reaches("isthmus_restarts_total", "result", "completed", 3)
}

// The leader is gone between the record and the restart.
func TestARecordWithoutARestartIsDiscarded(t *testing.T) {
	w := newWorld(t)
	w.deploy("a", "b")
	m, err := kube.CoreV1().ConfigMaps(release).Get(t.Context(), restart.ConfigMapName, metav1.GetOptions{})
	require.NoError(t, err)
	m.Data = map[string]string{
		"kind": "Deployment", "namespace": w.space, "name": "b", "uid": string(w.deployment("b").UID), "template": "0123456789abcdef", "at": "2026-01-01T00:00:00Z",
	}
	_, err = kube.CoreV1().ConfigMaps(release).Update(t.Context(), m, metav1.UpdateOptions{})
	require.NoError(t, err)
	w.upgrade(newer)
	w.rolled("a", newer)
	w.rolled("b", newer)
	w.queue(0, 0, 0)
	assert.Equal(t, 2, w.revisions("b"))
}

// The webhook goes on injecting the old template, though it says it is rolled out.
func TestAnOldWebhookMakesNoLoop(t *testing.T) {
	w := newWorld(t)
	w.deploy("a", "b")
	w.lead(newer)
	first, others := w.first("a", "b")
	note := w.event("Deployment", first, "RestartFailed")
	assert.Contains(t, note, "still has stale pods")
	w.queue(1, 0, 1)
	w.reaches("isthmus_restarts_total", "result", "failed", 1)
	assert.Equal(t, 2, w.revisions(first), "restarted once")
	assert.False(t, isRestarted(w.deployment(others[0])))

	// The next leader does not begin again either.
	w.lead(newer)
	w.queue(1, 0, 1)
	w.reaches("isthmus_restarts_total", "result", "failed", 1)
	assert.Equal(t, 2, w.revisions(first))
	assert.False(t, isRestarted(w.deployment(others[0])))

	w.serves.Store(engine(t, newer))
	require.NoError(t, kube.CoreV1().Pods(w.space).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=" + first}))
	w.rolled("a", newer)
	w.rolled("b", newer)
	w.queue(0, 0, 0)
	assert.Equal(t, 2, w.revisions(first))
}

// The new template's pods do not start, and the chart is rolled back.
func TestARollbackHealsWhatIsStuck(t *testing.T) {
	w := newWorld(t)
	w.deploy("a", "b")
	t.Cleanup(kubelet.hold(w.fresh(newer)))
	w.upgrade(newer, func(r *restart.Options) { r.Timeout = time.Second })
	first, others := w.first("a", "b")
	w.event("Deployment", first, "RestartStuck")

	w.upgrade(older)
	w.rolled(first, older)
	w.queue(0, 0, 0)
	assert.Equal(t, 3, w.revisions(first), "once for each template")
	assert.Equal(t, 1, w.revisions(others[0]))
	assert.False(t, isRestarted(w.deployment(others[0])))
}
