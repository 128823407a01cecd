package restart

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// engine is Isthmus with a template that differs by the sidecar's image.
func engine(t *testing.T, version string) *inject.Engine {
	t.Helper()
	e, err := inject.New(inject.Options{Settings: inject.Settings{Mesh: patches.Mesh{ProxyImage: "docker.io/istio/proxyv2:" + version}}})
	require.NoError(t, err)
	return e
}

var shop = policy.Namespace{
	Name: "shop", Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, Annotations: map[string]string{policy.RestartKey: "true"},
}

// podReader lists pods from a slice.
type podReader struct {
	client.Reader
	pods []corev1.Pod
}

func (r *podReader) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	pods, ok := list.(*corev1.PodList)
	if !ok {
		return errors.New("want a list of pods")
	}
	pods.Items = r.pods
	return nil
}

// shopWorld is a Restarter and an API server in memory, with the DaemonSet shop/front
// of one pod.
type shopWorld struct {
	*Restarter
	t        *testing.T
	kube     *fake.Clientset
	reader   *podReader
	clock    *clocktesting.FakePassiveClock
	webhook  error
	recorded []string
}

func newShop(t *testing.T) *shopWorld {
	t.Helper()
	daemonSet := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front", UID: "front-1", Generation: 1},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "front"}},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:4.1.0"}}}},
		},
		Status: appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: 1, UpdatedNumberScheduled: 1, NumberAvailable: 1},
	}
	w := &shopWorld{
		t:      t,
		kube:   fake.NewClientset(daemonSet, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-system", Name: ConfigMapName}}),
		reader: &podReader{}, clock: clocktesting.NewFakePassiveClock(noon),
	}
	restarter, err := New(Options{
		Kube: w.kube, Pods: w.reader, Engine: engine(t, "new"), Clock: w.clock, Namespace: "isthmus-system",
		ReadNamespace: func(context.Context, string) (policy.Namespace, bool, error) { return shop, true, nil },
		Events:        events.NewRecorder(nil, "isthmus-controller", logr.Discard()),
		Registerer:    prometheus.NewRegistry(),
		Ready:         func() error { return nil },
		CheckWebhook:  func(context.Context) error { return w.webhook },
	})
	require.NoError(t, err)
	w.Restarter = restarter
	w.once = events.NewOnce(func(e events.Event) { w.recorded = append(w.recorded, e.Reason) })
	return w
}

// injected has the DaemonSet's pod injected by a version of Isthmus.
func (w *shopWorld) injected(version string) {
	w.t.Helper()
	d := w.daemonSet()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "front-a", UID: types.UID("front-a-" + version), Labels: map[string]string{"app": "front"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "front", UID: d.UID, Controller: ptr.To(true)}},
	}, Spec: d.Spec.Template.Spec}
	result := engine(w.t, version).Inject(inject.Request{Pod: pod, Namespace: shop})
	require.Equal(w.t, policy.Injected, result.Reason, result.Message)
	patch, err := jsonpatch.DecodePatch(result.EncodedPatch)
	require.NoError(w.t, err)
	document, err := json.Marshal(pod)
	require.NoError(w.t, err)
	document, err = patch.Apply(document)
	require.NoError(w.t, err)
	injected := corev1.Pod{}
	require.NoError(w.t, json.Unmarshal(document, &injected))
	w.reader.pods = []corev1.Pod{injected}

	var stale []StalePod
	if s := w.Engine.Inject(inject.Request{Pod: &injected, Namespace: shop}).Staleness(); s.Stale {
		stale = []StalePod{{
			Pod: types.NamespacedName{Namespace: "shop", Name: "front-a"}, UID: injected.UID, Mode: policy.Sidecar,
			Owner: metav1.GetControllerOf(&injected), Template: s.Template,
		}}
	}
	w.Report("shop", stale)
}

func (w *shopWorld) daemonSet() *appsv1.DaemonSet {
	w.t.Helper()
	d, err := w.kube.AppsV1().DaemonSets("shop").Get(w.t.Context(), "front", metav1.GetOptions{})
	require.NoError(w.t, err)
	return d
}

// setRollout sets whether the DaemonSet is rolled out.
func (w *shopWorld) setRollout(isComplete bool) {
	w.t.Helper()
	d := w.daemonSet()
	d.Status.UpdatedNumberScheduled = 0
	if isComplete {
		d.Status.UpdatedNumberScheduled = 1
	}
	_, err := w.kube.AppsV1().DaemonSets("shop").Update(w.t.Context(), d, metav1.UpdateOptions{})
	require.NoError(w.t, err)
}

func (w *shopWorld) isRestarted() bool {
	return w.daemonSet().Annotations[policy.RestartedForKey] != ""
}

// steps makes a step, and another after a time.
func (w *shopWorld) steps(after ...time.Duration) {
	w.t.Helper()
	require.NoError(w.t, w.step(w.t.Context()))
	for _, d := range after {
		w.clock.SetTime(w.clock.Now().Add(d))
		require.NoError(w.t, w.step(w.t.Context()))
	}
}

func (w *shopWorld) assertQueue(waiting, rolling, stopped float64) {
	w.t.Helper()
	for state, want := range map[queueState]float64{queueWaiting: waiting, queueRolling: rolling, queueStopped: stopped} {
		assert.InDelta(w.t, want, testutil.ToFloat64(w.metrics.queue.WithLabelValues(string(state))), 0, state)
	}
}

func (w *shopWorld) assertCount(result string, want float64) {
	w.t.Helper()
	assert.InDelta(w.t, want, testutil.ToFloat64(w.metrics.restarts.WithLabelValues(result)), 0, result)
}

func (w *shopWorld) record() map[string]string {
	w.t.Helper()
	m, err := w.kube.CoreV1().ConfigMaps("isthmus-system").Get(w.t.Context(), ConfigMapName, metav1.GetOptions{})
	require.NoError(w.t, err)
	return m.Data
}

func TestNothingStaleIsRestarted(t *testing.T) {
	w := newShop(t)
	w.injected("new")
	w.steps(time.Hour)
	assert.False(t, w.isRestarted())
	w.assertQueue(0, 0, 0)
}

func TestRestartIsFollowedToItsEnd(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	w.steps()
	assert.False(t, w.isRestarted(), "the webhook has to serve the template for a while")
	w.assertQueue(1, 0, 0)

	w.steps(DefaultSettle)
	assert.True(t, w.isRestarted())
	assert.Equal(t, "front", w.record()["name"])
	assert.Equal(t, "DaemonSet", w.record()["kind"])
	assert.Equal(t, w.daemonSet().Annotations[policy.RestartedForKey], w.record()["template"])
	assert.NotEmpty(t, w.daemonSet().Spec.Template.Annotations[policy.RestartedAtKey])
	w.assertCount(resultStarted, 1)

	w.setRollout(false)
	w.steps(time.Second)
	w.assertQueue(0, 1, 0)
	w.steps(DefaultTimeout, time.Second)
	w.assertQueue(0, 0, 1)
	w.assertCount(resultStuck, 1)

	w.setRollout(true)
	w.injected("new")
	w.steps()
	assert.Empty(t, w.record())
	w.assertQueue(0, 0, 0)
	w.assertCount(resultCompleted, 1)
	assert.Equal(t, []string{EventRestarted, EventStuck, EventCompleted}, w.recorded)
}

func TestRestartThatDoesNotHelpStopsTheQueue(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	w.steps(DefaultSettle, time.Second, time.Second)
	w.assertQueue(0, 0, 1)
	w.assertCount(resultStarted, 1)
	w.assertCount(resultFailed, 1)
	assert.Equal(t, []string{EventRestarted, EventFailed}, w.recorded)
	assert.NotEmpty(t, w.record())
}

func TestAWebhookThatIsRolledOutHoldsTheQueue(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	w.webhook = errors.New("isthmus-webhook is not rolled out")
	w.steps(time.Hour)
	assert.False(t, w.isRestarted())
	w.webhook = nil
	w.steps()
	assert.False(t, w.isRestarted())
	w.steps(DefaultSettle)
	assert.True(t, w.isRestarted())
}

func TestARejectedRestartLeavesNoRecord(t *testing.T) {
	for name, test := range map[string]struct {
		answer  error
		refused float64
	}{
		"if a policy refuses, expect a refusal":    {apierrors.NewForbidden(appsv1.Resource("daemonsets"), "front", errors.New("policy")), 1},
		"if the workload changed, expect no Event": {apierrors.NewConflict(appsv1.Resource("daemonsets"), "front", errors.New("changed")), 0},
		"if the workload is gone, expect no Event": {apierrors.NewNotFound(appsv1.Resource("daemonsets"), "front"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newShop(t)
			w.injected("old")
			w.kube.PrependReactor("patch", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, test.answer })
			w.steps(DefaultSettle, time.Second)
			assert.Empty(t, w.record())
			assert.False(t, w.isRestarted())
			w.assertCount(resultStarted, 0)
			w.assertCount(resultRefused, test.refused)
			w.assertQueue(1, 0, 0)
		})
	}
}

func TestARestartWithoutAnAnswerIsDiscardedIfItNeverHappened(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	w.steps()
	w.kube.PrependReactor("patch", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection reset")
	})
	w.clock.SetTime(noon.Add(DefaultSettle))
	require.ErrorContains(t, w.step(t.Context()), "connection reset")
	assert.Equal(t, "front", w.record()["name"], "the workload may have been restarted")
	w.kube.ReactionChain = w.kube.ReactionChain[1:]
	w.steps()
	assert.True(t, w.isRestarted(), "the record was discarded, and the workload restarted")
	w.assertCount(resultStarted, 1)
}

func TestATemplateThatChangesDuringARestartIsTheNext(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	w.steps(DefaultSettle)
	first := w.record()["template"]
	require.NotEmpty(t, first)
	w.setRollout(false)
	w.Engine = engine(t, "newer")
	w.injected("new")
	w.steps(time.Second)
	assert.Equal(t, first, w.record()["template"], "the template is too new")
	w.assertQueue(0, 1, 0)

	w.kube.PrependReactor("patch", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(appsv1.Resource("daemonsets"), "front", errors.New("policy"))
	})
	w.steps(DefaultSettle)
	assert.Equal(t, first, w.record()["template"], "the record is again what it was before")
	w.assertQueue(0, 1, 0)
	w.assertCount(resultRefused, 1)

	w.kube.ReactionChain = w.kube.ReactionChain[1:]
	w.steps()
	assert.NotEqual(t, first, w.record()["template"])
	assert.Equal(t, w.record()["template"], w.daemonSet().Annotations[policy.RestartedForKey])
	w.assertCount(resultStarted, 2)
	assert.Equal(t, []string{EventRestarted, EventRefused, EventRestarted}, w.recorded)
}

func TestAWorkloadThatDeclinesIsReleased(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	w.steps(DefaultSettle)
	d := w.daemonSet()
	d.Annotations[policy.RestartKey] = "false"
	_, err := w.kube.AppsV1().DaemonSets("shop").Update(t.Context(), d, metav1.UpdateOptions{})
	require.NoError(t, err)
	w.steps()
	assert.Empty(t, w.record())
	assert.Equal(t, []string{EventRestarted, EventReleased}, w.recorded)
	w.assertQueue(0, 0, 0)
}

func TestAWorkloadThatIsGoneIsReleased(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	w.steps(DefaultSettle)
	require.True(t, w.isRestarted())
	require.NoError(t, w.kube.AppsV1().DaemonSets("shop").Delete(t.Context(), "front", metav1.DeleteOptions{}))
	w.Report("shop", nil)
	w.steps()
	assert.Empty(t, w.record())
	w.assertCount(resultReleased, 1)
	w.assertQueue(0, 0, 0)
}

func TestTheNextLeaderGoesOn(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	w.steps(DefaultSettle)
	require.True(t, w.isRestarted())
	w.setRollout(false)
	next := newShop(t)
	next.kube, next.Kube, next.Pods, next.reader = w.kube, w.kube, w.reader, w.reader
	next.journal = journal{kube: w.kube, namespace: "isthmus-system"}
	next.injected("old")
	next.steps(time.Hour)
	next.assertCount(resultStarted, 0)
	next.assertQueue(0, 0, 1)
	assert.Equal(t, []string{EventStuck}, next.recorded)
}

// Only pods of the workload count, and only while they run.
func TestPodsOfAWorkload(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	pod := func(name string, change func(*corev1.Pod)) corev1.Pod {
		p := w.reader.pods[0].DeepCopy()
		p.Name, p.UID = name, types.UID(name)
		change(p)
		return *p
	}
	w.reader.pods = append(w.reader.pods,
		pod("terminating", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: noon} }),
		pod("succeeded", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod("failed", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
		pod("another's", func(p *corev1.Pod) { p.OwnerReferences[0].UID = "other-1" }),
		pod("nobody's", func(p *corev1.Pod) { p.OwnerReferences = nil }),
		pod("bare", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "front"} }),
	)
	workload, err := readWorkload(t.Context(), w.kube, daemonSet, "shop", "front")
	require.NoError(t, err)
	pods, err := w.summarizePods(t.Context(), shop, workload)
	require.NoError(t, err)
	assert.Equal(t, &podSummary{notInjected: []string{"bare"}, stale: map[string][]string{pods.template(): {"front-a"}}}, pods)
}

func TestNothingIsReadWhileTheMeshIsUnknown(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	ready := errors.New("not read yet")
	w.Ready = func() error { return ready }
	w.kube.ClearActions()
	w.steps(DefaultSettle, DefaultSettle)
	assert.Empty(t, w.kube.Actions())
	assert.False(t, w.isRestarted())

	ready = nil
	w.steps()
	assert.False(t, w.isRestarted(), "the time counts from the first observation of the webhook")
	w.steps(DefaultSettle)
	assert.True(t, w.isRestarted())
}

// Events are recorded again for the next template: nothing is remembered of the last
// one when no pod is stale and nothing is being restarted.
func TestRefusalsAreForgottenWhenTheQueueIsEmpty(t *testing.T) {
	w := newShop(t)
	d := w.daemonSet()
	d.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType
	_, err := w.kube.AppsV1().DaemonSets("shop").Update(t.Context(), d, metav1.UpdateOptions{})
	require.NoError(t, err)
	w.injected("old")
	w.steps(DefaultSettle, time.Second, time.Second)
	assert.Equal(t, []string{EventRefused}, w.recorded, "once")

	w.Report("shop", nil)
	w.steps(time.Second)
	w.injected("old")
	w.steps(DefaultSettle, time.Second)
	assert.Equal(t, []string{EventRefused, EventRefused}, w.recorded, "again")
	w.assertCount(resultRefused, 2)
}

// While a restart is under way nothing is forgotten, although no pod is stale.
func TestEventsAreRememberedDuringARestart(t *testing.T) {
	w := newShop(t)
	w.injected("old")
	w.steps(DefaultSettle)
	require.True(t, w.isRestarted())
	w.setRollout(false)
	w.Report("shop", nil)
	w.steps(DefaultTimeout, time.Second, time.Second)
	assert.Equal(t, []string{EventRestarted, EventStuck}, w.recorded)
	w.assertCount(resultStuck, 1)
}

func TestJournal(t *testing.T) {
	w := newShop(t)
	found, err := w.journal.load(t.Context())
	require.NoError(t, err)
	assert.Nil(t, found)
	r := &record{kind: "Deployment", namespace: "shop", name: "front", uid: "front-1", template: "new", at: noon}
	require.NoError(t, w.journal.store(t.Context(), r))
	found, err = w.journal.load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, r, found)
	require.NoError(t, w.journal.store(t.Context(), nil))
	found, err = w.journal.load(t.Context())
	require.NoError(t, err)
	assert.Nil(t, found)

	m, err := w.kube.CoreV1().ConfigMaps("isthmus-system").Get(t.Context(), ConfigMapName, metav1.GetOptions{})
	require.NoError(t, err)
	m.Data = map[string]string{"name": "front", "at": "yesterday"}
	_, err = w.kube.CoreV1().ConfigMaps("isthmus-system").Update(t.Context(), m, metav1.UpdateOptions{})
	require.NoError(t, err)
	_, err = w.journal.load(t.Context())
	assert.ErrorContains(t, err, "empty its data to discard the record")
}

func TestOptionsAreRequired(t *testing.T) {
	_, err := New(Options{})
	for _, name := range []string{"client", "reader of pods", "reader of namespaces", "engine", "recorder of Events", "registerer", "readiness", "namespace for the ConfigMap"} {
		assert.ErrorContains(t, err, "restart: no "+name)
	}
}
