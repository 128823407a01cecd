package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-mesh/isthmus/internal/controller"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// patience is how long a condition may take on a busy machine.
const patience = 30 * time.Second

// tick is how often a condition is checked.
const tick = 50 * time.Millisecond

var settings = inject.Settings{SecretNames: []string{"istio-certs", "istio-other"}, PublisherImage: "ghcr.io/isthmus-mesh/isthmus:dev"}

// world is a running controller and what it works on.
type world struct {
	t        *testing.T
	kube     kubernetes.Interface
	dynamic  dynamic.Interface
	mesh     *authority
	engine   *inject.Engine
	registry *prometheus.Registry
	stop     func()
}

// spaces makes the names of namespaces unique in this run.
var spaces atomic.Int64

// start runs a controller until the test ends, in the way of a leader.
func start(t *testing.T, change ...func(*controller.Options)) *world {
	t.Helper()
	kube, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	dynamicClient, err := dynamic.NewForConfig(admin)
	require.NoError(t, err)
	engine, err := inject.New(inject.Options{Settings: settings})
	require.NoError(t, err)
	w := &world{t: t, kube: kube, dynamic: dynamicClient, mesh: newAuthority(t), engine: engine}
	w.run(change...)
	return w
}

// run starts the controller, again after stop.
func (w *world) run(change ...func(*controller.Options)) {
	w.t.Helper()
	cached, err := controller.CacheOptions()
	require.NoError(w.t, err)
	w.registry = prometheus.NewRegistry()
	mgr, err := manager.New(rest.CopyConfig(admin), manager.Options{
		Cache: cached, Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	require.NoError(w.t, err)
	secrets, err := publish.NewClient(admin)
	require.NoError(w.t, err)
	recorder := events.NewRecorder(func(ctx context.Context, event *eventsv1.Event) error {
		return mgr.GetClient().Create(ctx, event)
	}, controller.Name, logr.Discard())
	require.NoError(w.t, mgr.Add(recorder))
	mesh := patches.Mesh{}.Defaults()
	options := controller.Options{
		Settings: settings, Engine: w.engine, Mesh: func(string) (patches.Mesh, error) { return mesh, nil },
		Roots: w.mesh, Secrets: secrets, Dynamic: w.dynamic, Registerer: w.registry,
		Sources: map[policy.Source]controller.Source{policy.IstioCA: w.mesh},
		Events:  recorder, Ready: func() error { return nil }, ScanInterval: time.Second, CheckInterval: 100 * time.Millisecond,
	}
	for _, c := range change {
		c(&options)
	}
	require.NoError(w.t, controller.Add(mgr, options))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(w.t, <-ended)
	}
	w.t.Cleanup(w.stop)
}

// namespace makes an opted-in namespace with service accounts.
func (w *world) namespace(annotations map[string]string, accounts ...string) string {
	w.t.Helper()
	name := fmt.Sprintf("edge-%d", spaces.Add(1))
	_, err := w.kube.CoreV1().Namespaces().Create(w.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, Annotations: annotations,
	}}, metav1.CreateOptions{})
	require.NoError(w.t, err)
	// The next test's controller has nothing to do here.
	w.t.Cleanup(func() {
		assert.NoError(w.t, w.kube.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{}))
	})
	for _, account := range accounts {
		_, err := w.kube.CoreV1().ServiceAccounts(name).Create(w.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
		require.NoError(w.t, err)
	}
	return name
}

// label changes the label isthmus.dev/injection of a namespace; empty removes it.
func (w *world) label(namespace, value string) {
	w.t.Helper()
	w.merge(namespace, "labels", policy.InjectionLabel, value)
}

// annotate changes an annotation of a namespace; empty removes it.
func (w *world) annotate(namespace, key, value string) {
	w.t.Helper()
	w.merge(namespace, "annotations", key, value)
}

func (w *world) merge(namespace, field, key, value string) {
	w.t.Helper()
	entry := map[string]any{key: value}
	if value == "" {
		entry[key] = nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{field: entry}})
	require.NoError(w.t, err)
	_, err = w.kube.CoreV1().Namespaces().Patch(w.t.Context(), namespace, "application/merge-patch+json", patch, metav1.PatchOptions{})
	require.NoError(w.t, err)
}

// edgePod is an edge as its author writes it.
func edgePod(name, account string, annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec: corev1.PodSpec{
			ServiceAccountName: account, AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:3.9.1"}},
		},
	}
}

// edge creates an injected pod: what the webhook would have made of it.
func (w *world) edge(namespace string, pod *corev1.Pod) *corev1.Pod {
	w.t.Helper()
	ns, err := w.kube.CoreV1().Namespaces().Get(w.t.Context(), namespace, metav1.GetOptions{})
	require.NoError(w.t, err)
	result := w.engine.Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{Name: namespace, Labels: ns.Labels, Annotations: ns.Annotations}})
	require.Equal(w.t, policy.Injected, result.Reason, result.Message)
	patch, err := jsonpatch.DecodePatch(result.EncodedPatch)
	require.NoError(w.t, err)
	document, err := json.Marshal(pod)
	require.NoError(w.t, err)
	document, err = patch.Apply(document)
	require.NoError(w.t, err)
	injected := &corev1.Pod{}
	require.NoError(w.t, json.Unmarshal(document, injected))
	return w.create(namespace, injected)
}

func (w *world) create(namespace string, pod *corev1.Pod) *corev1.Pod {
	w.t.Helper()
	created, err := w.kube.CoreV1().Pods(namespace).Create(w.t.Context(), pod, metav1.CreateOptions{})
	require.NoError(w.t, err)
	return created
}

// end deletes a pod at once: no kubelet confirms it here.
func (w *world) end(pod *corev1.Pod) {
	w.t.Helper()
	require.NoError(w.t, w.kube.CoreV1().Pods(pod.Namespace).Delete(w.t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
}

// secret waits for a Secret for which check is true.
func (w *world) secret(namespace, name string, check func(*corev1.Secret) bool) *corev1.Secret {
	w.t.Helper()
	var found *corev1.Secret
	require.Eventually(w.t, func() bool {
		s, err := w.kube.CoreV1().Secrets(namespace).Get(w.t.Context(), name, metav1.GetOptions{})
		if err != nil || !check(s) {
			return false
		}
		found = s
		return true
	}, patience, tick, "secret %s/%s", namespace, name)
	return found
}

func anything(*corev1.Secret) bool { return true }

// gone waits until a Secret is not there.
func (w *world) gone(namespace, name string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		_, err := w.kube.CoreV1().Secrets(namespace).Get(w.t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}, patience, tick, "secret %s/%s is still there", namespace, name)
}

// event waits for an Event with this reason about an object of this kind and
// name, and returns its note.
func (w *world) event(namespace, kind, name, reason string) string {
	w.t.Helper()
	var note string
	require.Eventually(w.t, func() bool {
		list, err := w.kube.EventsV1().Events(namespace).List(w.t.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		for _, e := range list.Items {
			if isAbout(e, kind, name, reason) {
				note = e.Note
				return true
			}
		}
		return false
	}, patience, tick, "event %s about %s %s/%s", reason, kind, namespace, name)
	return note
}

func isAbout(e eventsv1.Event, kind, name, reason string) bool {
	return e.Regarding.Kind == kind && e.Regarding.Name == name && e.Reason == reason
}

// metric is the value of one series, NaN and false when it is not there.
func (w *world) metric(name string, labels map[string]string) (float64, bool) {
	w.t.Helper()
	families, err := w.registry.Gather()
	require.NoError(w.t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			matching := 0
			for _, l := range m.GetLabel() {
				if labels[l.GetName()] == l.GetValue() {
					matching++
				}
			}
			if matching == len(labels) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue(), true
			}
		}
	}
	return 0, false
}

// reaches waits until a metric has a value.
func (w *world) reaches(name string, labels map[string]string, want float64) {
	w.t.Helper()
	assert.Eventually(w.t, func() bool {
		got, ok := w.metric(name, labels)
		return ok && got == want
	}, patience, tick, "%s%v never was %v", name, labels, want)
}

// reachesNothing waits until a metric has no such series.
func (w *world) reachesNothing(name string, labels map[string]string) {
	w.t.Helper()
	assert.Eventually(w.t, func() bool {
		_, ok := w.metric(name, labels)
		return !ok
	}, patience, tick, "%s%v is still there", name, labels)
}

// problems are what a linter says of the metrics.
func (w *world) problems() []string {
	w.t.Helper()
	found, err := testutil.GatherAndLint(w.registry)
	require.NoError(w.t, err)
	var texts []string
	for _, p := range found {
		texts = append(texts, p.Metric+": "+p.Text)
	}
	return texts
}

func identity(t testing.TB, id string) spiffeid.ID {
	t.Helper()
	parsed, err := spiffeid.FromString(id)
	require.NoError(t, err)
	return parsed
}

func idOf(namespace, account string) string {
	return "spiffe://cluster.local/ns/" + namespace + "/sa/" + account
}

var errAway = errors.New("dial istiod.istio-system.svc:15012: connection refused")
