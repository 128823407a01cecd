package discovery

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/internal/mesh"
	"github.com/isthmus-mesh/isthmus/patches"
)

func start(t *testing.T, client kubernetes.Interface, namespace string) *mesh.Watcher {
	t.Helper()
	w, err := mesh.NewWatcher(mesh.Options{Client: client, Namespace: namespace})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	eventually(t, "the watcher is ready", func() bool { return w.Ready() == nil })
	return w
}

func eventually(t *testing.T, description string, condition func() bool) {
	t.Helper()
	// The backoff after a refusal grows to half a minute.
	require.Eventually(t, condition, 90*time.Second, 10*time.Millisecond, description)
}

func trustDomain(w *mesh.Watcher, revision string) string {
	m, err := w.Mesh(revision)
	if err != nil {
		return err.Error()
	}
	return m.TrustDomain
}

func TestWatcherWithTheChartsRights(t *testing.T) {
	i := newIstio(t)
	i.grant(t)
	i.grantInCluster(t)
	i.install(t, "default.yaml")
	i.install(t, "revisioned.yaml")
	_, err := i.admin.CoreV1().ConfigMaps(i.namespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-grafana-dashboards"},
		Data:       map[string]string{"mesh": strings.Repeat("x", 900_000)},
	}, metav1.CreateOptions{})
	require.NoError(t, err)

	w := start(t, i.webhook(t), i.namespace)
	def, err := w.Mesh("")
	require.NoError(t, err)
	assert.Equal(t, "registry.istio.io/release/proxyv2:1.31.1", def.ProxyImage)
	assert.Equal(t, patches.Duration(2160*time.Hour), def.MaxCertTTL)
	canary, err := w.Mesh("canary")
	require.NoError(t, err)
	assert.Equal(t, "example.org", canary.TrustDomain)
	assert.Equal(t, "istio.io:istiod-ca:our-root", canary.RootClusterTrustBundle)
	assert.Equal(t, patches.Duration(12*time.Hour), canary.MaxCertTTL)
	_, err = w.Mesh("blue")
	assert.EqualError(t, err, `istio revision "blue" is not installed in namespace `+i.namespace+", only default, canary")
	require.NotEmpty(t, i.selectors())
	assert.NotContains(t, i.selectors(), "", "all ConfigMaps of the namespace were listed")

	i.setMesh(t, "istio-canary", "trustDomain: [")
	eventually(t, "the error shows", func() bool { return w.Err() != nil })
	assert.ErrorContains(t, w.Err(), "ConfigMap "+i.namespace+"/istio-canary mesh: not YAML")
	assert.Equal(t, "example.org", trustDomain(w, "canary"), "the last good value is kept")
	require.NoError(t, w.Ready())

	i.setMesh(t, "istio-canary", "trustDomain: new.example.org")
	eventually(t, "the new value is used", func() bool { return trustDomain(w, "canary") == "new.example.org" })
	assert.NoError(t, w.Err())

	for _, name := range []string{"istio-canary", "istio-sidecar-injector-canary"} {
		require.NoError(t, i.admin.CoreV1().ConfigMaps(i.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
	eventually(t, "the revision is gone", func() bool { _, err := w.Mesh("canary"); return err != nil })
	assert.Equal(t, "cluster.local", trustDomain(w, ""))
}

func TestIstioComesLater(t *testing.T) {
	i := newIstio(t)
	i.grant(t)
	w := start(t, i.webhook(t), i.namespace)
	s, err := w.Settings("")
	require.NoError(t, err)
	require.Len(t, s.Warnings, 1)
	assert.Equal(t, "no Istio found in namespace "+i.namespace+": settings that are not given explicitly have their documented defaults", s.Warnings[0])

	i.install(t, "istio-1.20.yaml")
	eventually(t, "all of Istio is seen", func() bool {
		m, err := w.Mesh("")
		return err == nil && m.TrustDomain == "old.example.org" && m.MaxCertTTL == patches.Duration(24*time.Hour) &&
			m.ProxyImage == "docker.io/istio/proxyv2:1.20.8"
	})
}

func TestRightsComeLater(t *testing.T) {
	i := newIstio(t)
	i.install(t, "istio-1.20.yaml")
	client := i.webhook(t)
	w := start(t, client, i.namespace)
	s, err := w.Settings("")
	require.NoError(t, err)
	assert.Equal(t, "cluster.local", s.Mesh.TrustDomain)
	require.Len(t, s.Warnings, 1)
	assert.Contains(t, s.Warnings[0], "forbidden")
	_, err = mesh.Discover(t.Context(), client, i.namespace, patches.Mesh{})
	assert.ErrorContains(t, err, "read Istio's ConfigMaps in namespace "+i.namespace)

	injector, err := w.Injector("red")
	require.NoError(t, err, "unreadable injectors do not refuse pods")
	assert.Zero(t, injector)

	i.grant(t)
	eventually(t, "Istio is seen", func() bool { return trustDomain(w, "") == "old.example.org" })
	found, err := mesh.Discover(t.Context(), client, i.namespace, patches.Mesh{TrustDomain: "explicit.example.org"})
	require.NoError(t, err)
	s, err = found.Settings("")
	require.NoError(t, err)
	assert.Equal(t, "explicit.example.org", s.Mesh.TrustDomain)
	assert.Equal(t, "docker.io/istio/proxyv2:1.20.8", s.Mesh.ProxyImage)
	require.Len(t, s.Warnings, 1, "the command line works without permissions in the cluster")
	assert.Contains(t, s.Warnings[0], "istio's revision tags and injectors are not known: mutatingwebhookconfigurations.admissionregistration.k8s.io is forbidden")

	i.grantInCluster(t)
	eventually(t, "Istio's injectors are seen", func() bool { _, err := w.Injector("red"); return err != nil })
}

func TestNamespaceIsMissing(t *testing.T) {
	client, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	w := start(t, client, "no-such-namespace")
	m, err := w.Mesh("")
	require.NoError(t, err)
	assert.Equal(t, "istiod.no-such-namespace.svc:15012", m.DiscoveryAddress)
}
