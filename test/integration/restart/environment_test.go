package restart

import (
	"context"
	"crypto/x509"
	"encoding/json"
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
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

// engine is Isthmus with a template that differs by the sidecar's image.
func engine(t testing.TB, version string) *inject.Engine {
	t.Helper()
	e, err := inject.New(inject.Options{Settings: settings(version)})
	require.NoError(t, err)
	return e
}

func settings(version string) inject.Settings {
	return inject.Settings{SecretNames: []string{"istio-certs"}, Mesh: patches.Mesh{ProxyImage: "docker.io/istio/proxyv2:" + version}}
}

// The templates before and after an upgrade.
const (
	older = "1.27.0"
	newer = "1.28.0"
)

// world is a webhook, a controller, and the namespace of the edges.
type world struct {
	t *testing.T
	// space is opted in, and asks for restarts.
	space string
	// serves is what the webhook injects by.
	serves   atomic.Pointer[inject.Engine]
	registry *prometheus.Registry
	stop     func()
}

var spaces atomic.Int64

// newWorld makes a namespace and a webhook for it, which serves the older template.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, space: fmt.Sprintf("restart-%d", spaces.Add(1)), stop: func() {}}
	w.serves.Store(engine(t, older))
	_, err := kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: w.space, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, Annotations: map[string]string{policy.RestartKey: "true"},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, kube.CoreV1().Namespaces().Delete(context.Background(), w.space, metav1.DeleteOptions{}))
	})
	w.serve()
	return w
}

// facts reads namespaces as the webhook does, without a cache.
type facts struct{}

func (facts) Namespace(ctx context.Context, name string, _ bool) (policy.Namespace, error) {
	ns, err := kube.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return policy.Namespace{}, err
	}
	return policy.Namespace{Name: name, Labels: ns.Labels, Annotations: ns.Annotations}, nil
}

// serve starts the webhook and has the API server call it.
func (w *world) serve() {
	w.t.Helper()
	metrics, err := webhook.NewMetrics(prometheus.NewRegistry())
	require.NoError(w.t, err)
	memory := webhook.NewMemoryBudget()
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		(&webhook.Handler{Engine: w.serves.Load(), Memory: memory, Namespaces: facts{}, Metrics: metrics, Log: logr.Discard(), Labelled: true, Timeout: patience}).ServeHTTP(rw, r)
	}))
	w.t.Cleanup(server.Close)
	configurations := kube.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err = configurations.Create(w.t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: w.space},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "namespace.isthmus.dev", SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: ptr.To(server.URL), CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			TimeoutSeconds:     ptr.To[int32](30),
			ReinvocationPolicy: ptr.To(admissionregistrationv1.IfNeededReinvocationPolicy),
			NamespaceSelector:  &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.space}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		assert.NoError(w.t, configurations.Delete(context.Background(), w.space, metav1.DeleteOptions{}))
	})
	// The API server learns of it by a watch.
	require.EventuallyWithT(w.t, func(t *assert.CollectT) {
		pod, err := kube.CoreV1().Pods(w.space).Create(w.t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: template("probe").Spec}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if assert.NoError(t, err) {
			assert.Contains(t, pod.Labels, policy.InjectedLabel)
		}
	}, patience, tick)
}

// nothing is a mesh that has not issued anything yet.
type nothing struct{}

func (nothing) Bundle(context.Context, certs.Request) (*certs.Bundle, error) {
	return nil, certs.ErrPending
}
func (nothing) Roots() ([]*x509.Certificate, error) { return nil, nil }
func (nothing) OnChange(func())                     {}

// lead runs a controller of a version with the chart's service account, as the
// leader does, until it is stopped or the test ends.
func (w *world) lead(version string, change ...func(*restart.Options)) {
	w.t.Helper()
	w.stop()
	cached, err := controller.CacheOptions()
	require.NoError(w.t, err)
	w.registry = prometheus.NewRegistry()
	mgr, err := manager.New(robot, manager.Options{
		Cache: cached, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	require.NoError(w.t, err)
	secrets, err := publish.NewClient(robot)
	require.NoError(w.t, err)
	dynamicClient, err := dynamic.NewForConfig(robot)
	require.NoError(w.t, err)
	client, err := kubernetes.NewForConfig(robot)
	require.NoError(w.t, err)
	recorder := events.NewRecorder(func(ctx context.Context, event *eventsv1.Event) error {
		return mgr.GetClient().Create(ctx, event)
	}, controller.Name, logr.Discard())
	require.NoError(w.t, mgr.Add(recorder))
	ready := func() error { return nil }
	options := restart.Options{
		Kube: client, Pods: mgr.GetAPIReader(), Namespaces: controller.Namespaces(mgr.GetClient(), settings(version)), Engine: engine(w.t, version),
		Events: recorder, Registerer: w.registry, Log: logr.Discard(), Ready: ready,
		Namespace: release, Timeout: time.Hour, Settle: time.Millisecond, Interval: tick,
	}
	for _, c := range change {
		c(&options)
	}
	restarter, err := restart.New(options)
	require.NoError(w.t, err)
	require.NoError(w.t, mgr.Add(restarter))
	report := func(namespace string, pods []controller.StalePod) {
		list := make([]restart.StalePod, len(pods))
		for i, pod := range pods {
			list[i] = restart.StalePod(pod)
		}
		restarter.Report(namespace, list)
	}
	mesh := settings(version).Mesh.Defaults()
	require.NoError(w.t, controller.Add(mgr, controller.Options{
		Settings: settings(version), Engine: engine(w.t, version), Mesh: func(string) (patches.Mesh, error) { return mesh, nil },
		Roots: nothing{}, Secrets: secrets, Dynamic: dynamicClient, Registerer: w.registry,
		Sources: map[policy.Source]controller.Source{policy.IstioCA: nothing{}},
		Events:  recorder, Ready: ready, ScanInterval: time.Second, ReportStale: report,
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	w.stop = func() {
		w.stop = func() {}
		cancel()
		require.NoError(w.t, <-ended)
	}
	w.t.Cleanup(func() { w.stop() })
}

// upgrade has webhook and controller go to another version, as a chart does.
func (w *world) upgrade(version string, change ...func(*restart.Options)) {
	w.t.Helper()
	w.serves.Store(engine(w.t, version))
	w.lead(version, change...)
}

// template is an edge's.
func template(name string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false), SchedulerName: "nobody",
			Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:3.9.1"}},
		},
	}
}

func objectMeta(name string, annotations map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Annotations: annotations}
}

func selector(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

// deploy makes Deployments of two replicas, and waits until they are up.
func (w *world) deploy(names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.deployWith(name, nil, func(*appsv1.Deployment) {})
	}
	for _, name := range names {
		w.up(name)
	}
}

func (w *world) deployWith(name string, annotations map[string]string, change func(*appsv1.Deployment)) {
	w.t.Helper()
	d := &appsv1.Deployment{ObjectMeta: objectMeta(name, annotations), Spec: appsv1.DeploymentSpec{
		Replicas: ptr.To[int32](2), Selector: selector(name), Template: template(name), ProgressDeadlineSeconds: ptr.To[int32](3600),
	}}
	change(d)
	_, err := kube.AppsV1().Deployments(w.space).Create(w.t.Context(), d, metav1.CreateOptions{})
	require.NoError(w.t, err)
}

func (w *world) deployment(name string) *appsv1.Deployment {
	w.t.Helper()
	d, err := kube.AppsV1().Deployments(w.space).Get(w.t.Context(), name, metav1.GetOptions{})
	require.NoError(w.t, err)
	return d
}

// isUp says what kubectl rollout status waits for.
func isUp(d *appsv1.Deployment) bool {
	s, want := d.Status, *d.Spec.Replicas
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
}

func (w *world) up(name string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return isUp(w.deployment(name)) }, patience, tick, "Deployment %s is not up", name)
}

// pods are those of a workload that are not on their way out.
func (w *world) pods(name string) []corev1.Pod {
	w.t.Helper()
	list, err := kube.CoreV1().Pods(w.space).List(w.t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
	require.NoError(w.t, err)
	var pods []corev1.Pod
	for _, pod := range list.Items {
		if pod.DeletionTimestamp.IsZero() {
			pods = append(pods, pod)
		}
	}
	return pods
}

// carries reports whether every pod of a workload has the sidecar of a version.
func (w *world) carries(name, version string) bool {
	w.t.Helper()
	pods := w.pods(name)
	for _, pod := range pods {
		if !isOf(&pod, version) {
			return false
		}
	}
	return len(pods) > 0
}

func isOf(pod *corev1.Pod, version string) bool {
	for _, c := range pod.Spec.InitContainers {
		if c.Image == "docker.io/istio/proxyv2:"+version {
			return true
		}
	}
	return false
}

// rolled waits until a Deployment is up with the sidecar of a version.
func (w *world) rolled(name, version string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return isUp(w.deployment(name)) && w.carries(name, version) }, patience, tick, "Deployment %s is not rolled to %s", name, version)
}

// isRestarted reports whether the controller ever restarted a Deployment.
func isRestarted(d *appsv1.Deployment) bool {
	return d.Annotations[policy.RestartedForKey] != "" || d.Spec.Template.Annotations[restart.RestartedAt] != ""
}

// revisions is how many templates a Deployment has had.
func (w *world) revisions(name string) int {
	w.t.Helper()
	list, err := kube.AppsV1().ReplicaSets(w.space).List(w.t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
	require.NoError(w.t, err)
	return len(list.Items)
}

// annotate sets an annotation of a Deployment.
func (w *world) annotate(name, key, value string) {
	w.t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{key: value}}})
	require.NoError(w.t, err)
	_, err = kube.AppsV1().Deployments(w.space).Patch(w.t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(w.t, err)
}

// event waits for an Event about an object, and returns its note.
func (w *world) event(kind, name, reason string) string {
	w.t.Helper()
	var note string
	require.Eventually(w.t, func() bool {
		list, err := kube.EventsV1().Events(w.space).List(w.t.Context(), metav1.ListOptions{})
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
	}, patience, tick, "event %s about %s %s", reason, kind, name)
	return note
}

// reaches waits until a metric has a value.
func (w *world) reaches(name, label, value string, want float64) {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return w.metric(name, label, value) == want }, patience, tick, "%s{%s=%q} never was %v", name, label, value, want)
}

func (w *world) metric(name, label, value string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	require.NoError(w.t, err)
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

// queue waits until the queue is in this state.
func (w *world) queue(waiting, rolling, stopped float64) {
	w.t.Helper()
	for state, want := range map[string]float64{"waiting": waiting, "rolling": rolling, "stopped": stopped} {
		w.reaches("isthmus_restart_queue", "state", state, want)
	}
}

// record is the content of the ConfigMap with the restart that is under way.
func record(t *testing.T) map[string]string {
	t.Helper()
	m, err := kube.CoreV1().ConfigMaps(release).Get(t.Context(), restart.ConfigMapName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(t, err)
	return m.Data
}
