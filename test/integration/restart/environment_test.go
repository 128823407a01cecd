package restart

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/controller"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/internal/restart"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// engine returns an engine whose template has the sidecar image of a version.
func engine(t testing.TB, version string) *inject.Engine {
	t.Helper()
	e, err := inject.New(inject.Options{Settings: settings(version)})
	require.NoError(t, err)
	return e
}

func settings(version string) inject.Settings {
	return inject.Settings{SecretNames: []string{"istio-certs"}, Mesh: patches.Mesh{ProxyImage: "docker.io/istio/proxyv2:" + version}}
}

// The versions of the template before and after an upgrade.
const (
	older = "1.27.0"
	newer = "1.28.0"
)

// environment is a webhook, a controller, and the namespace of the edges.
type environment struct {
	t *testing.T
	// namespace is opted in, and its annotation asks for restarts.
	namespace string
	// webhookEngine is the engine of the webhook.
	webhookEngine atomic.Pointer[inject.Engine]
	registry      *prometheus.Registry
	stop          func()
}

var namespaceCount atomic.Int64

// newEnvironment creates a namespace and starts a webhook for it, with the older template.
func newEnvironment(t *testing.T) *environment {
	t.Helper()
	env := &environment{t: t, namespace: fmt.Sprintf("restart-%d", namespaceCount.Add(1)), stop: func() {}}
	env.webhookEngine.Store(engine(t, older))
	_, err := kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: env.namespace, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, Annotations: map[string]string{policy.RestartKey: "true"},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, kube.CoreV1().Namespaces().Delete(context.Background(), env.namespace, metav1.DeleteOptions{}))
	})
	env.startWebhook()
	return env
}

// namespaceReader reads namespaces for the webhook, without a cache.
type namespaceReader struct{}

func (namespaceReader) Namespace(ctx context.Context, name string, _ bool) (policy.Namespace, error) {
	ns, err := kube.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return policy.Namespace{}, err
	}
	return policy.Namespace{Name: name, Labels: ns.Labels, Annotations: ns.Annotations}, nil
}

// startWebhook starts the webhook and makes the API server call it.
func (env *environment) startWebhook() {
	env.t.Helper()
	metrics, err := webhook.NewMetrics(prometheus.NewRegistry())
	require.NoError(env.t, err)
	memory := webhook.NewMemoryBudget()
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		(&webhook.Handler{Engine: env.webhookEngine.Load(), Memory: memory, Namespaces: namespaceReader{}, Metrics: metrics, Log: logr.Discard(), Labelled: true, Timeout: waitTimeout}).ServeHTTP(rw, r)
	}))
	env.t.Cleanup(server.Close)
	configurations := kube.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err = configurations.Create(env.t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: env.namespace},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "namespace.isthmus.dev", SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: ptr.To(server.URL), CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			TimeoutSeconds:     ptr.To[int32](30),
			ReinvocationPolicy: ptr.To(admissionregistrationv1.IfNeededReinvocationPolicy),
			NamespaceSelector:  &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: env.namespace}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(env.t, err)
	env.t.Cleanup(func() {
		assert.NoError(env.t, configurations.Delete(context.Background(), env.namespace, metav1.DeleteOptions{}))
	})
	// The API server observes the configuration by a watch.
	require.EventuallyWithT(env.t, func(t *assert.CollectT) {
		pod, err := kube.CoreV1().Pods(env.namespace).Create(env.t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: podTemplate("probe").Spec}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if assert.NoError(t, err) {
			assert.Contains(t, pod.Labels, policy.InjectedLabel)
		}
	}, waitTimeout, pollInterval)
}

// pendingMesh is a mesh that has no roots and has not issued a certificate yet.
type pendingMesh struct{}

func (pendingMesh) Bundle(context.Context, certs.Request) (*certs.Bundle, error) {
	return nil, certs.ErrPending
}
func (pendingMesh) Roots() ([]*x509.Certificate, error) { return nil, nil }
func (pendingMesh) OnChange(func())                     {}

// startController stops the controller and starts one of a version, as the leader and with
// the chart's service account. It runs until it is stopped or the test ends.
func (env *environment) startController(version string, change ...func(*restart.Options)) {
	env.t.Helper()
	env.stop()
	cached, err := controller.CacheOptions()
	require.NoError(env.t, err)
	env.registry = prometheus.NewRegistry()
	mgr, err := manager.New(controllerConfig, manager.Options{
		Cache: cached, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	require.NoError(env.t, err)
	secrets, err := publish.NewClient(controllerConfig)
	require.NoError(env.t, err)
	dynamicClient, err := dynamic.NewForConfig(controllerConfig)
	require.NoError(env.t, err)
	client, err := kubernetes.NewForConfig(controllerConfig)
	require.NoError(env.t, err)
	recorder := events.NewRecorder(func(ctx context.Context, event *eventsv1.Event) error {
		return mgr.GetClient().Create(ctx, event)
	}, controller.Name, logr.Discard())
	require.NoError(env.t, mgr.Add(recorder))
	ready := func() error { return nil }
	options := restart.Options{
		Kube: client, Pods: mgr.GetAPIReader(), ReadNamespace: controller.NewNamespaceReader(mgr.GetClient(), settings(version)), Engine: engine(env.t, version),
		Events: recorder, Registerer: env.registry, Log: logr.Discard(), Ready: ready,
		Namespace: release, Timeout: time.Hour, Settle: time.Millisecond, Interval: pollInterval,
	}
	for _, c := range change {
		c(&options)
	}
	restarter, err := restart.New(options)
	require.NoError(env.t, err)
	require.NoError(env.t, mgr.Add(restarter))
	report := func(namespace string, pods []controller.StalePod) {
		list := make([]restart.StalePod, len(pods))
		for i, pod := range pods {
			list[i] = restart.StalePod(pod)
		}
		restarter.Report(namespace, list)
	}
	mesh := settings(version).Mesh.WithDefaults()
	require.NoError(env.t, controller.Add(mgr, controller.Options{
		Settings: settings(version), Engine: engine(env.t, version), Mesh: func(string) (patches.Mesh, error) { return mesh, nil },
		Roots: pendingMesh{}, Secrets: secrets, Dynamic: dynamicClient, Registerer: env.registry,
		Sources: map[policy.Source]controller.Source{policy.IstioCA: pendingMesh{}},
		Events:  recorder, Ready: ready, ScanInterval: time.Second, ReportStale: report,
	}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	env.stop = func() {
		env.stop = func() {}
		cancel()
		require.NoError(env.t, <-done)
	}
	env.t.Cleanup(func() { env.stop() })
}

// upgrade upgrades webhook and controller to another version, as the chart does.
func (env *environment) upgrade(version string, change ...func(*restart.Options)) {
	env.t.Helper()
	env.webhookEngine.Store(engine(env.t, version))
	env.startController(version, change...)
}

// awaitEvent waits for an Event about an object, and returns its note.
func (env *environment) awaitEvent(kind, name, reason string) string {
	env.t.Helper()
	var note string
	require.Eventually(env.t, func() bool {
		list, err := kube.EventsV1().Events(env.namespace).List(env.t.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		for _, e := range list.Items {
			if e.Regarding.Kind == kind && e.Regarding.Name == name && e.Reason == reason {
				note = e.Note
				return true
			}
		}
		return false
	}, waitTimeout, pollInterval, "event %s about %s %s", reason, kind, name)
	return note
}

// awaitMetric waits until a metric has a value.
func (env *environment) awaitMetric(name, label, value string, want float64) {
	env.t.Helper()
	require.Eventually(env.t, func() bool { return env.metric(name, label, value) == want }, waitTimeout, pollInterval, "%s{%s=%q} never was %v", name, label, value, want)
}

func (env *environment) metric(name, label, value string) float64 {
	env.t.Helper()
	families, err := env.registry.Gather()
	require.NoError(env.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == label && l.GetValue() == value {
					return m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
	}
	return -1
}

// awaitQueue waits until the metric of the restart queue has these values.
func (env *environment) awaitQueue(waiting, rolling, stopped float64) {
	env.t.Helper()
	for state, want := range map[string]float64{"waiting": waiting, "rolling": rolling, "stopped": stopped} {
		env.awaitMetric("isthmus_restart_queue", "state", state, want)
	}
}

// readRecord returns the content of the ConfigMap with the current restart.
func readRecord(t *testing.T) map[string]string {
	t.Helper()
	m, err := kube.CoreV1().ConfigMaps(release).Get(t.Context(), restart.ConfigMapName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(t, err)
	return m.Data
}
