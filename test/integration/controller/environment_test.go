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

// waitTimeout is how long a condition may take on a busy machine.
const waitTimeout = 30 * time.Second

// pollInterval is how often a condition is checked.
const pollInterval = 50 * time.Millisecond

var settings = inject.Settings{
	SecretNames: []string{"istio-certs", "istio-other"}, TLSContextNames: []string{"istio-upstream", "mesh-upstream"},
	PublisherImage: "ghcr.io/isthmus-mesh/isthmus:dev",
}

// environment is a running controller with its engine, its mesh and its clients.
type environment struct {
	t *testing.T
	// kube and dynamic are the administrator's.
	kube     kubernetes.Interface
	dynamic  dynamic.Interface
	mesh     *authority
	engine   *inject.Engine
	registry *prometheus.Registry
	stop     func()
}

// namespaceCount makes the names of namespaces unique.
var namespaceCount atomic.Int64

// newEnvironment starts a controller, as the leader, until the test ends.
func newEnvironment(t *testing.T, change ...func(*controller.Options)) *environment {
	t.Helper()
	kube, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	dynamicClient, err := dynamic.NewForConfig(admin)
	require.NoError(t, err)
	engine, err := inject.New(inject.Options{Settings: settings})
	require.NoError(t, err)
	env := &environment{t: t, kube: kube, dynamic: dynamicClient, mesh: newAuthority(t), engine: engine}
	env.startController(change...)
	return env
}

// startController starts the controller, also after stop.
func (env *environment) startController(change ...func(*controller.Options)) {
	env.t.Helper()
	cacheOptions, err := controller.CacheOptions()
	require.NoError(env.t, err)
	env.registry = prometheus.NewRegistry()
	account, err := controllerAccount()
	require.NoError(env.t, err)
	mgr, err := manager.New(rest.CopyConfig(account), manager.Options{
		Cache: cacheOptions, Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	require.NoError(env.t, err)
	secrets, err := publish.NewClient(account)
	require.NoError(env.t, err)
	objects, err := dynamic.NewForConfig(account)
	require.NoError(env.t, err)
	recorder := events.NewRecorder(func(ctx context.Context, event *eventsv1.Event) error {
		return mgr.GetClient().Create(ctx, event)
	}, controller.Name, logr.Discard())
	require.NoError(env.t, mgr.Add(recorder))
	mesh := patches.Mesh{}.WithDefaults()
	options := controller.Options{
		Settings: settings, Engine: env.engine, Mesh: func(string) (patches.Mesh, error) { return mesh, nil },
		Roots: env.mesh, Secrets: secrets, Dynamic: objects, Registerer: env.registry,
		Sources: map[policy.Source]controller.Source{policy.IstioCA: env.mesh},
		Events:  recorder, Ready: func() error { return nil }, ScanInterval: time.Second, CheckInterval: 100 * time.Millisecond,
	}
	for _, c := range change {
		c(&options)
	}
	require.NoError(env.t, controller.Add(mgr, options))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stopped := false
	env.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(env.t, <-done)
	}
	env.t.Cleanup(env.stop)
}

// createNamespace creates an opted-in namespace with service accounts.
func (env *environment) createNamespace(annotations map[string]string, accounts ...string) string {
	env.t.Helper()
	name := fmt.Sprintf("edge-%03d", namespaceCount.Add(1))
	_, err := env.kube.CoreV1().Namespaces().Create(env.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, Annotations: annotations,
	}}, metav1.CreateOptions{})
	require.NoError(env.t, err)
	// The namespace is deleted so that the next test's controller does not reconcile it.
	env.t.Cleanup(func() {
		assert.NoError(env.t, env.kube.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{}))
	})
	for _, account := range accounts {
		_, err := env.kube.CoreV1().ServiceAccounts(name).Create(env.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
		require.NoError(env.t, err)
	}
	return name
}

// setLabel sets the label isthmus.dev/injection of a namespace. Empty removes it.
func (env *environment) setLabel(namespace, value string) {
	env.t.Helper()
	env.patchNamespace(namespace, "labels", policy.InjectionLabel, value)
}

// annotate sets an annotation of a namespace. Empty removes it.
func (env *environment) annotate(namespace, key, value string) {
	env.t.Helper()
	env.patchNamespace(namespace, "annotations", key, value)
}

func (env *environment) patchNamespace(namespace, field, key, value string) {
	env.t.Helper()
	entry := map[string]any{key: value}
	if value == "" {
		entry[key] = nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{field: entry}})
	require.NoError(env.t, err)
	_, err = env.kube.CoreV1().Namespaces().Patch(env.t.Context(), namespace, "application/merge-patch+json", patch, metav1.PatchOptions{})
	require.NoError(env.t, err)
}

// edgePod returns an edge that is not injected.
func edgePod(name, account string, annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec: corev1.PodSpec{
			ServiceAccountName: account, AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:3.9.1"}},
		},
	}
}

// createEdge injects a pod as the webhook does, and creates it.
func (env *environment) createEdge(namespace string, pod *corev1.Pod) *corev1.Pod {
	env.t.Helper()
	ns, err := env.kube.CoreV1().Namespaces().Get(env.t.Context(), namespace, metav1.GetOptions{})
	require.NoError(env.t, err)
	result := env.engine.Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{Name: namespace, Labels: ns.Labels, Annotations: ns.Annotations}})
	require.Equal(env.t, policy.Injected, result.Reason, result.Message)
	patch, err := jsonpatch.DecodePatch(result.EncodedPatch)
	require.NoError(env.t, err)
	document, err := json.Marshal(pod)
	require.NoError(env.t, err)
	document, err = patch.Apply(document)
	require.NoError(env.t, err)
	injected := &corev1.Pod{}
	require.NoError(env.t, json.Unmarshal(document, injected))
	return env.createPod(namespace, injected)
}

func (env *environment) createPod(namespace string, pod *corev1.Pod) *corev1.Pod {
	env.t.Helper()
	created, err := env.kube.CoreV1().Pods(namespace).Create(env.t.Context(), pod, metav1.CreateOptions{})
	require.NoError(env.t, err)
	return created
}

// deletePod deletes a pod without a grace period, since there is no kubelet.
func (env *environment) deletePod(pod *corev1.Pod) {
	env.t.Helper()
	require.NoError(env.t, env.kube.CoreV1().Pods(pod.Namespace).Delete(env.t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
}

// awaitSecret waits for a Secret for which check is true.
func (env *environment) awaitSecret(namespace, name string, check func(*corev1.Secret) bool) *corev1.Secret {
	env.t.Helper()
	var found *corev1.Secret
	require.Eventually(env.t, func() bool {
		s, err := env.kube.CoreV1().Secrets(namespace).Get(env.t.Context(), name, metav1.GetOptions{})
		if err != nil || !check(s) {
			return false
		}
		found = s
		return true
	}, waitTimeout, pollInterval, "secret %s/%s", namespace, name)
	return found
}

func anySecret(*corev1.Secret) bool { return true }

// awaitNoSecret waits until a Secret does not exist.
func (env *environment) awaitNoSecret(namespace, name string) {
	env.t.Helper()
	require.Eventually(env.t, func() bool {
		_, err := env.kube.CoreV1().Secrets(namespace).Get(env.t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}, waitTimeout, pollInterval, "secret %s/%s is still there", namespace, name)
}

// awaitEvent waits for an Event with this reason about an object of this kind and name,
// and returns its note.
func (env *environment) awaitEvent(namespace, kind, name, reason string) string {
	env.t.Helper()
	var note string
	require.Eventually(env.t, func() bool {
		list, err := env.kube.EventsV1().Events(namespace).List(env.t.Context(), metav1.ListOptions{})
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
	}, waitTimeout, pollInterval, "event %s about %s %s/%s", reason, kind, namespace, name)
	return note
}

func isAbout(e eventsv1.Event, kind, name, reason string) bool {
	return e.Regarding.Kind == kind && e.Regarding.Name == name && e.Reason == reason
}

// metric returns the value of a series with these labels, or 0 and false if there is none.
func (env *environment) metric(name string, labels map[string]string) (float64, bool) {
	env.t.Helper()
	families, err := env.registry.Gather()
	require.NoError(env.t, err)
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

// observations returns the number of observations of a histogram.
func (env *environment) observations(name string) uint64 {
	env.t.Helper()
	families, err := env.registry.Gather()
	require.NoError(env.t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	return 0
}

// awaitMetric waits until a metric has a value.
func (env *environment) awaitMetric(name string, labels map[string]string, want float64) {
	env.t.Helper()
	assert.Eventually(env.t, func() bool {
		got, ok := env.metric(name, labels)
		return ok && got == want
	}, waitTimeout, pollInterval, "%s%v never was %v", name, labels, want)
}

// awaitNoSeries waits until a metric has no series with these labels.
func (env *environment) awaitNoSeries(name string, labels map[string]string) {
	env.t.Helper()
	assert.Eventually(env.t, func() bool {
		_, ok := env.metric(name, labels)
		return !ok
	}, waitTimeout, pollInterval, "%s%v is still there", name, labels)
}

// lintMetrics returns the problems that the linter finds in the metrics.
func (env *environment) lintMetrics() []string {
	env.t.Helper()
	found, err := testutil.GatherAndLint(env.registry)
	require.NoError(env.t, err)
	var texts []string
	for _, p := range found {
		texts = append(texts, p.Metric+": "+p.Text)
	}
	return texts
}

func parseID(t testing.TB, id string) spiffeid.ID {
	t.Helper()
	parsed, err := spiffeid.FromString(id)
	require.NoError(t, err)
	return parsed
}

func spiffeID(namespace, account string) string {
	return "spiffe://cluster.local/ns/" + namespace + "/sa/" + account
}

var errUnavailable = errors.New("dial istiod.istio-system.svc:15012: connection refused")
