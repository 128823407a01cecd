package mesh

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

var (
	_ manager.Runnable               = &Watcher{}
	_ manager.LeaderElectionRunnable = &Watcher{}
)

// fakeCluster is a fake API server that can deny requests.
type fakeCluster struct {
	*fake.Clientset
	mu sync.Mutex
	// denied holds the error that lists of a resource return.
	denied map[string]error
}

func newCluster(existing ...runtime.Object) *fakeCluster {
	c := &fakeCluster{Clientset: fake.NewClientset(existing...), denied: make(map[string]error)}
	answer := func(a ktesting.Action) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.denied[a.GetResource().Resource]
	}
	c.PrependReactor("list", "*", func(a ktesting.Action) (bool, runtime.Object, error) {
		err := answer(a)
		return err != nil, nil, err
	})
	return c
}

func (c *fakeCluster) deny(resource string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied[resource] = err
}

func (c *fakeCluster) set(t *testing.T, name, key, value string) {
	t.Helper()
	api := c.CoreV1().ConfigMaps(DefaultNamespace)
	cm, err := api.Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	cm = cm.DeepCopy()
	cm.Data[key] = value
	_, err = api.Update(t.Context(), cm, metav1.UpdateOptions{})
	require.NoError(t, err)
}

func forbidden(resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no role says so"))
}

// logLines records log lines for tests.
type logLines struct {
	mu  sync.Mutex
	all []string
}

func (l *logLines) logger() logr.Logger {
	return funcr.New(func(_, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, args)
	}, funcr.Options{})
}

func (l *logLines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.all {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// startWatcher runs a Watcher until the test ends and asserts that Start then returns.
func startWatcher(t *testing.T, o Options) *Watcher {
	t.Helper()
	w, err := NewWatcher(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			assert.NoError(t, err)
		case <-time.After(10 * time.Second):
			t.Error("Start did not return")
		}
	})
	return w
}

func eventually(t *testing.T, description string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 15*time.Second, 5*time.Millisecond, description)
}

func awaitReady(t *testing.T, w *Watcher) {
	t.Helper()
	eventually(t, "the watcher is ready", func() bool { return w.Ready() == nil })
}

// errorText returns the text of an error; empty for nil.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func trustDomain(t *testing.T, w *Watcher, revision string) string {
	t.Helper()
	m, err := w.Mesh(revision)
	require.NoError(t, err)
	return m.TrustDomain
}

// badRevisions returns the value of the only metric in the registry.
func badRevisions(t *testing.T, metrics *prometheus.Registry) float64 {
	t.Helper()
	families, err := metrics.Gather()
	require.NoError(t, err)
	require.Len(t, families, 1)
	require.Equal(t, "isthmus_mesh_settings_errors", families[0].GetName())
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

func TestWatcherKeepsTheLastGoodSettings(t *testing.T) {
	c, log, metrics := newCluster(loadObjects(t, "testdata/default.yaml")...), &logLines{}, prometheus.NewRegistry()
	w := startWatcher(t, Options{Client: c, Log: log.logger(), Registerer: metrics})
	awaitReady(t, w)
	before, err := w.Mesh("")
	require.NoError(t, err)
	assert.Equal(t, "registry.istio.io/release/proxyv2:1.31.1", before.ProxyImage)
	assert.NoError(t, w.Err())
	assert.Zero(t, badRevisions(t, metrics))

	c.set(t, "istio", keyMesh, "trustDomain: [broken")
	eventually(t, "the error shows", func() bool { return w.Err() != nil })
	assert.ErrorContains(t, w.Err(), "ConfigMap istio-system/istio mesh: not YAML")
	after, err := w.Mesh("")
	require.NoError(t, err)
	assert.Equal(t, before, after)
	assert.NoError(t, w.Ready(), "a bad ConfigMap of Istio does not take the webhook down")
	assert.InDelta(t, 1, badRevisions(t, metrics), 0)

	// Another invalid value causes another log line, the same value does not. The
	// last change shows that the Watcher has processed the one before.
	c.set(t, "istio-sidecar-injector", keyMesh, "not read")
	c.set(t, "istio", keyMesh, "trustDomain: a/b")
	eventually(t, "the other error shows", func() bool { return strings.Contains(errorText(w.Err()), "a/b") })
	assert.Equal(t, 1, log.count("not YAML"), "%s", log.all)
	assert.Equal(t, 1, log.count("the last good ones are used\" \"error\"=\"ConfigMap istio-system/istio mesh.trustDomain"), "%s", log.all)

	c.set(t, "istio", keyMesh, "trustDomain: recovered.example.org")
	eventually(t, "the error is gone", func() bool { return w.Err() == nil })
	assert.Equal(t, "recovered.example.org", trustDomain(t, w, ""))
	assert.Zero(t, badRevisions(t, metrics))
}

func TestWatcherStartsWithInvalidSettings(t *testing.T) {
	objects := append(loadObjects(t, "testdata/default.yaml"), loadObjects(t, "testdata/revisioned.yaml")...)
	c, log := newCluster(objects...), &logLines{}
	c.set(t, "istio-canary", keyMesh, "trustDomain: 7")
	w := startWatcher(t, Options{Client: c, Log: log.logger()})
	awaitReady(t, w)
	assert.Equal(t, "cluster.local", trustDomain(t, w, ""), "the other revision is not touched")
	_, err := w.Mesh("canary")
	assert.EqualError(t, err, "istio's settings cannot be read: ConfigMap istio-system/istio-canary mesh.trustDomain: want a string, got number")
	shared, err := w.SharedMesh()
	require.NoError(t, err)
	assert.Empty(t, shared.Revision)
	assert.Equal(t, 1, log.count("pods that need them are refused"))

	c.set(t, "istio-canary", keyMesh, "trustDomain: canary.example.org")
	eventually(t, "the revision is good", func() bool { _, err := w.Mesh("canary"); return err == nil })
	assert.Equal(t, "canary.example.org", trustDomain(t, w, "canary"))
	_, err = w.Mesh("blue")
	assert.EqualError(t, err, `istio revision "blue" is not installed in namespace istio-system, only default, canary`)
}

func TestWatcherIstioComesAndGoes(t *testing.T) {
	c, log := newCluster(), &logLines{}
	w := startWatcher(t, Options{Client: c, Log: log.logger(), Explicit: patches.Mesh{ClusterID: "explicit"}})
	awaitReady(t, w)
	s, err := w.Settings("")
	require.NoError(t, err)
	assert.Equal(t, patches.Mesh{ClusterID: "explicit"}.WithDefaults(), s.Mesh)
	assert.Equal(t, []string{"no Istio found in namespace istio-system: settings that are not given explicitly have their documented defaults"}, s.Warnings)
	m, err := w.Mesh("blue")
	require.NoError(t, err)
	assert.Equal(t, "istiod-blue.istio-system.svc:15012", m.DiscoveryAddress)
	assert.Equal(t, 1, log.count("no Istio found"))

	for _, o := range loadObjects(t, "testdata/istio-1.20.yaml") {
		if cm, ok := o.(*corev1.ConfigMap); ok {
			_, err := c.CoreV1().ConfigMaps(DefaultNamespace).Create(t.Context(), cm, metav1.CreateOptions{})
			require.NoError(t, err)
		}
	}
	eventually(t, "Istio is seen", func() bool { return trustDomain(t, w, "") == "old.example.org" })
	eventually(t, "all of it is seen", func() bool { m, _ := w.Mesh(""); return strings.HasSuffix(m.ProxyImage, "1.20.8") })
	s, err = w.Settings("")
	require.NoError(t, err)
	assert.Equal(t, "explicit", s.Mesh.ClusterID)
	assert.Equal(t, SourceExplicit, s.Sources["clusterID"])
	_, err = w.Mesh("blue")
	assert.Error(t, err, "now the installed revisions are known")

	for _, name := range []string{"istio", "istio-sidecar-injector"} {
		require.NoError(t, c.CoreV1().ConfigMaps(DefaultNamespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
	eventually(t, "the defaults are back", func() bool { return trustDomain(t, w, "") == "cluster.local" && log.count("no Istio found") == 2 })
	assert.Equal(t, 1, log.count("istio revision is gone"))
	assert.NoError(t, w.Ready())
}

func TestWatcherForbidden(t *testing.T) {
	c, log := newCluster(loadObjects(t, "testdata/istio-1.20.yaml")...), &logLines{}
	c.deny("configmaps", forbidden("configmaps"))
	c.deny("deployments", forbidden("deployments"))
	w := startWatcher(t, Options{Client: c, Log: log.logger()})
	awaitReady(t, w)
	s, err := w.Settings("")
	require.NoError(t, err)
	assert.Equal(t, patches.Mesh{}.WithDefaults(), s.Mesh)
	require.Len(t, s.Warnings, 1)
	assert.Contains(t, s.Warnings[0], "no role says so")
	assert.Equal(t, 1, log.count("no Istio found"))

	c.deny("configmaps", nil)
	eventually(t, "Istio is seen", func() bool {
		m, _ := w.Mesh("")
		return m.TrustDomain == "old.example.org" && strings.HasSuffix(m.ProxyImage, "1.20.8")
	})
	m, err := w.Mesh("")
	require.NoError(t, err)
	assert.Zero(t, m.MaxCertTTL, "only the Deployment knows it")

	c.deny("deployments", nil)
	eventually(t, "istiod is seen", func() bool { m, _ := w.Mesh(""); return m.MaxCertTTL == patches.Duration(24*time.Hour) })
	assert.Equal(t, 1, log.count(`"objects"="Deployments with label app=istiod"`), "a refusal is logged once: %s", log.all)
}

func TestWatcherOnlyIstiodForbidden(t *testing.T) {
	c := newCluster()
	c.deny("deployments", forbidden("deployments"))
	w := startWatcher(t, Options{Client: c})
	awaitReady(t, w)
	s, err := w.Settings("")
	require.NoError(t, err)
	assert.Equal(t, []string{"no Istio found in namespace istio-system: settings that are not given explicitly have their documented defaults"}, s.Warnings,
		"a forbidden Deployment is not the reason for a missing ConfigMap")
}

func TestWatcherUnreachable(t *testing.T) {
	c := newCluster(loadObjects(t, "testdata/istio-1.20.yaml")...)
	c.deny("configmaps", errors.New("connection refused"))
	w := startWatcher(t, Options{Client: c})
	eventually(t, "the error shows", func() bool { return w.HasSynced() || strings.Contains(errorText(w.Ready()), "connection refused") })
	require.False(t, w.HasSynced())
	_, err := w.Mesh("")
	assert.EqualError(t, err, "istio's settings have not been read yet", "without an answer it is unknown whether there is an Istio")
	_, err = w.Injector("")
	assert.EqualError(t, err, "istio's settings have not been read yet")
	_, err = w.SharedMesh()
	assert.ErrorIs(t, err, errSettingsNotRead)
	assert.NoError(t, w.Err())

	c.deny("configmaps", nil)
	awaitReady(t, w)
	assert.Equal(t, "old.example.org", trustDomain(t, w, ""))
}

func TestWatcherFollowsTags(t *testing.T) {
	objects := append(loadObjects(t, "testdata/revisioned.yaml"), loadObjects(t, "testdata/remote.yaml")...)
	c, log := newCluster(objects...), &logLines{}
	configurations := c.AdmissionregistrationV1().MutatingWebhookConfigurations()
	apply := func(o *admissionv1.MutatingWebhookConfiguration) {
		t.Helper()
		_, err := configurations.Update(t.Context(), o, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			_, err = configurations.Create(t.Context(), o, metav1.CreateOptions{})
		}
		require.NoError(t, err)
	}
	apply(newConfiguration("istio-revision-tag-default", "default", withTag("canary")))
	w := startWatcher(t, Options{Client: c, Log: log.logger(), WebhookConfiguration: "j-ours"})
	awaitReady(t, w)
	canary, err := w.Settings("")
	require.NoError(t, err)
	assert.Equal(t, "canary", canary.Mesh.Revision)
	assert.Equal(t, "tag default of MutatingWebhookConfiguration istio-revision-tag-default", canary.Sources[fieldRevision])
	byRevision, err := w.Settings("canary")
	require.NoError(t, err)
	assert.NotEqual(t, canary.Sources[fieldRevision], byRevision.Sources[fieldRevision], "the revision itself was not found by a tag")
	injector, err := w.Injector("")
	require.NoError(t, err)
	assert.Equal(t, inject.Injector{Configuration: "istio-revision-tag-default", RunsFirst: true}, injector)

	apply(newConfiguration("istio-revision-tag-default", "default", withTag("prod"), ifNeeded))
	eventually(t, "the tag has moved", func() bool { m, _ := w.Mesh(""); return m.Revision == "prod" })
	injector, err = w.Injector("default")
	require.NoError(t, err)
	assert.True(t, injector.Reinvoked)

	apply(newConfiguration("istio-revision-tag-default", "default", withTag("gone")))
	eventually(t, "the tag dangles", func() bool { _, err := w.Mesh(""); return err != nil })
	_, err = w.Mesh("")
	assert.EqualError(t, err, `istio's tag "default" (MutatingWebhookConfiguration istio-revision-tag-default) points to revision gone, `+
		"which is not installed in namespace istio-system, only canary, prod: point it to one of these")
	assert.NoError(t, w.Ready())

	require.NoError(t, configurations.Delete(t.Context(), "istio-revision-tag-default", metav1.DeleteOptions{}))
	eventually(t, "no injector is left", func() bool { _, err := w.Injector(""); return err != nil })
	_, err = w.Mesh("")
	assert.EqualError(t, err, "istio in namespace istio-system has the revisions canary, prod and no default one: "+
		"name one of them with label istio.io/rev, or set the tag default")
	shared, err := w.SharedMesh()
	require.NoError(t, err, "the roots are known even if the revision is ambiguous")
	assert.Equal(t, "canary", shared.Revision)
	assert.Equal(t, 1, log.count(`"tags"="default (revision canary)"`), "%s", log.all)
	assert.Equal(t, 1, log.count(`"tags"="default (revision prod)"`), "%s", log.all)
}

func TestWatcherInjectorsForbidden(t *testing.T) {
	c, log := newCluster(loadObjects(t, "testdata/istio-1.20.yaml")...), &logLines{}
	c.deny("mutatingwebhookconfigurations", forbidden("mutatingwebhookconfigurations"))
	w := startWatcher(t, Options{Client: c, Log: log.logger()})
	awaitReady(t, w)
	assert.Equal(t, "old.example.org", trustDomain(t, w, ""))
	injector, err := w.Injector("a")
	require.NoError(t, err, "unreadable injectors do not refuse pods")
	assert.Zero(t, injector)
	_, err = w.Mesh("prod")
	assert.ErrorContains(t, err, "(its tags are not known: failed to list *v1.MutatingWebhookConfiguration: mutatingwebhookconfigurations is forbidden: no role says so)")

	_, err = c.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(),
		newConfiguration("istio-revision-tag-prod", "prod", withTag("default")), metav1.CreateOptions{})
	require.NoError(t, err)
	c.deny("mutatingwebhookconfigurations", nil)
	eventually(t, "the tag is seen", func() bool { m, _ := w.Mesh("prod"); return m.TrustDomain == "old.example.org" })
	// The tag can be seen a moment before all tags are known.
	eventually(t, "the injectors are known", func() bool { _, err = w.Injector("a"); return err != nil })
	assert.ErrorContains(t, err, `no injector of Istio serves revision or tag "a", only prod (istio-revision-tag-prod)`)
	assert.Equal(t, 1, log.count(`"objects"="MutatingWebhookConfigurations with labels app=sidecar-injector,istio.io/rev"`), "%s", log.all)
}

func TestTagsWithoutIstio(t *testing.T) {
	c := newCluster(newConfiguration("istio-revision-tag-prod", "prod", withTag("canary"), withServiceNamespace("mesh-ns")))
	w := startWatcher(t, Options{Client: c, Namespace: "mesh-ns"})
	awaitReady(t, w)
	s, err := w.Settings("prod")
	require.NoError(t, err)
	assert.Equal(t, "istiod-canary.mesh-ns.svc:15012", s.Mesh.DiscoveryAddress)
	assert.Equal(t, "tag prod of MutatingWebhookConfiguration istio-revision-tag-prod", s.Sources[fieldRevision])
}

func TestWatcherUnderLoad(t *testing.T) {
	c := newCluster(loadObjects(t, "testdata/default.yaml")...)
	w := startWatcher(t, Options{Client: c})
	awaitReady(t, w)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				m, err := w.Mesh("")
				if err != nil || m.TrustDomain == "" {
					t.Errorf("got %v, %v", m, err)
					return
				}
			}
		})
	}
	for _, value := range []string{"trustDomain: a", "trustDomain: [", "trustDomain: b", "trustDomain: c"} {
		c.set(t, "istio", keyMesh, value)
	}
	eventually(t, "the last value is seen", func() bool { return trustDomain(t, w, "") == "c" })
	close(stop)
	readers.Wait()
}

func TestNewWatcherRefusesBadOptions(t *testing.T) {
	_, err := NewWatcher(Options{})
	assert.EqualError(t, err, "mesh watcher: no client given")
	_, err = NewWatcher(Options{Client: newCluster(), Explicit: patches.Mesh{CAAddress: "nowhere"}})
	assert.EqualError(t, err, `mesh settings: caAddress "nowhere": want host:port`)
	metrics := prometheus.NewRegistry()
	_, err = NewWatcher(Options{Client: newCluster(), Registerer: metrics})
	require.NoError(t, err)
	_, err = NewWatcher(Options{Client: newCluster(), Registerer: metrics})
	assert.ErrorContains(t, err, "metric isthmus_mesh_settings_errors: duplicate")
}
