package controller

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/internal/controller"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestSecretOfTheFirstPod(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))

	s := env.awaitSecret(ns, "istio-certs", anySecret)
	b := env.mesh.requireBundle(t, s.Data, spiffeID(ns, "edge"))
	assert.Equal(t, corev1.SecretTypeTLS, s.Type)
	assert.Equal(t, string(s.Data["ca.crt"]), string(s.Data["root-cert.pem"]))
	assert.Equal(t, "isthmus", s.Labels["app.kubernetes.io/managed-by"])
	assert.Equal(t, b.Serial(), s.Annotations[policy.SerialKey])
	assert.Equal(t, "istio-ca", s.Annotations[policy.SourceKey])

	assert.Contains(t, env.awaitEvent(ns, "Secret", "istio-certs", "Issued"), spiffeID(ns, "edge"))
	assert.Contains(t, env.awaitEvent(ns, "Secret", "istio-certs", "Published"), b.Serial())
	labels := map[string]string{"namespace": ns, "secret": "istio-certs", "spiffe_id": spiffeID(ns, "edge"), "source": "istio-ca"}
	env.awaitMetric("isthmus_certificate_not_after_timestamp_seconds", labels, float64(b.NotAfter().Unix()))
	env.awaitMetric("isthmus_certificate_not_before_timestamp_seconds", labels, float64(b.NotBefore().Unix()))
	env.awaitMetric("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "sidecar", "state": "injected"}, 1)
	env.awaitMetric("isthmus_publish_total", map[string]string{"result": "published"}, 1)
	env.awaitMetric("isthmus_root_not_after_timestamp_seconds", nil, float64(env.mesh.currentSigner().Certificate.NotAfter.Unix()))
	renew, ok := env.metric("isthmus_certificate_renew_after_timestamp_seconds", labels)
	require.True(t, ok)
	assert.InDelta(t, float64(time.Now().Add(8*time.Hour).Unix()), renew, 120, "a third of 24 hours")
	assert.Empty(t, env.lintMetrics())
	assert.Equal(t, 1, env.mesh.issuedCount(ns))
}

func TestSecretBeforeTheFirstPod(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(map[string]string{policy.ServiceAccountKey: "edge"}, "edge")
	s := env.awaitSecret(ns, "istio-certs", anySecret)
	env.mesh.requireBundle(t, s.Data, spiffeID(ns, "edge"))
}

func TestNoSecretWithoutAnEdge(t *testing.T) {
	env := newEnvironment(t)
	ns, other := env.createNamespace(nil, "edge"), env.createNamespace(nil, "edge")
	env.createPod(ns, edgePod("bare", "edge", nil))
	env.createEdge(other, edgePod("front", "edge", nil))
	env.awaitSecret(other, "istio-certs", anySecret)
	env.awaitMetric("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "sidecar", "state": "missing"}, 1)
	_, err := env.kube.CoreV1().Secrets(ns).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	assert.Error(t, err)
}

func TestSecretIsRepaired(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	first := env.awaitSecret(ns, "istio-certs", anySecret)
	api := env.kube.CoreV1().Secrets(ns)

	require.NoError(t, api.Delete(t.Context(), "istio-certs", metav1.DeleteOptions{}))
	second := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return s.UID != first.UID })
	env.mesh.requireBundle(t, second.Data, spiffeID(ns, "edge"))

	damaged := second.DeepCopy()
	damaged.Data["tls.key"] = certtest.NewAuthority(t).KeyPEM
	_, err := api.Update(t.Context(), damaged, metav1.UpdateOptions{FieldManager: "kubectl-edit"})
	require.NoError(t, err)
	third := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return !bytes.Equal(s.Data["tls.key"], damaged.Data["tls.key"]) })
	env.mesh.requireBundle(t, third.Data, spiffeID(ns, "edge"))
	assert.Contains(t, env.awaitEvent(ns, "Secret", "istio-certs", "Rejected"), "key-mismatch")
	env.awaitMetric("isthmus_bundle_rejected_total", map[string]string{"reason": "key-mismatch"}, 1)
}

func TestRenewal(t *testing.T) {
	env := newEnvironment(t)
	env.mesh.configure(9*time.Second, nil)
	ns := env.createNamespace(nil, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	s := env.awaitSecret(ns, "istio-certs", anySecret)
	serials := map[string]bool{s.Annotations[policy.SerialKey]: true}
	for range 2 {
		s = env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return !serials[s.Annotations[policy.SerialKey]] })
		env.mesh.requireBundle(t, s.Data, spiffeID(ns, "edge"))
		serials[s.Annotations[policy.SerialKey]] = true
	}
}

func TestUnavailableSource(t *testing.T) {
	env := newEnvironment(t)
	env.mesh.configure(6*time.Second, nil)
	ns := env.createNamespace(nil, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	first := env.awaitSecret(ns, "istio-certs", anySecret)
	env.mesh.configure(6*time.Second, errUnavailable)
	assert.Contains(t, env.awaitEvent(ns, "Secret", "istio-certs", "Failed"), "connection refused")
	second := env.awaitSecret(ns, "istio-certs", anySecret)
	assert.Equal(t, first.Data, second.Data, "the Secret is not changed")
	env.mesh.configure(time.Hour, nil)
	healed := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return s.ResourceVersion != second.ResourceVersion })
	env.mesh.requireBundle(t, healed.Data, spiffeID(ns, "edge"))
}

func TestSourceThatRepeatsItsBundle(t *testing.T) {
	env := newEnvironment(t)
	env.mesh.configure(6*time.Second, nil)
	ns := env.createNamespace(nil, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	env.awaitSecret(ns, "istio-certs", anySecret)
	env.mesh.mu.Lock()
	env.mesh.repeats = true
	env.mesh.mu.Unlock()
	require.Eventually(t, func() bool { return env.mesh.issuedCount(ns) > 1 }, waitTimeout, pollInterval, "the renewal is due")
	before, start := env.mesh.issuedCount(ns), time.Now()
	require.Eventually(t, func() bool { return env.mesh.issuedCount(ns) >= before+10 }, waitTimeout, pollInterval)
	assert.Greater(t, time.Since(start), 500*time.Millisecond, "one request with every check, and no more")
}

func TestForeignSecret(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	api := env.kube.CoreV1().Secrets(ns)
	foreign, err := api.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "istio-certs"}, StringData: map[string]string{"mine": "1"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	env.createEdge(ns, edgePod("front", "edge", nil))

	assert.Contains(t, env.awaitEvent(ns, "Secret", "istio-certs", "Conflict"), policy.AdoptKey)
	assert.Equal(t, foreign.ResourceVersion, env.awaitSecret(ns, "istio-certs", anySecret).ResourceVersion)
	got, _ := env.metric("isthmus_publish_total", map[string]string{"result": "foreign"})
	assert.Positive(t, got)
	assert.Zero(t, env.mesh.issuedCount(ns), "nothing is issued for a Secret that may not be written")

	foreign.Annotations = map[string]string{policy.AdoptKey: "true"}
	_, err = api.Update(t.Context(), foreign, metav1.UpdateOptions{})
	require.NoError(t, err)
	s := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return len(s.Data["tls.crt"]) > 0 })
	env.mesh.requireBundle(t, s.Data, spiffeID(ns, "edge"))
	assert.Equal(t, corev1.SecretTypeOpaque, s.Type, "the existing type is not changed")
	assert.Equal(t, []byte("1"), s.Data["mine"], "other keys are not changed")
}

func TestTwoEdgesWithOneSecretName(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "one", "two")
	env.createEdge(ns, edgePod("front-one", "one", nil))
	env.awaitSecret(ns, "istio-certs", anySecret)
	writes := env.watchSecret(ns)
	env.createEdge(ns, edgePod("front-two", "two", nil))

	note := env.awaitEvent(ns, "Pod", "front-two", "Conflict")
	assert.Contains(t, note, "serves service account one")
	assert.Contains(t, note, policy.SecretNameKey)
	refused := map[string]string{"result": "conflict"}
	require.Eventually(t, func() bool { got, _ := env.metric("isthmus_publish_total", refused); return got >= 10 }, waitTimeout, pollInterval, "many checks")
	assert.Empty(t, writes(), "a stable conflict causes no writes")
	env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-certs", anySecret).Data, spiffeID(ns, "one"))

	env.createEdge(ns, edgePod("front-three", "two", map[string]string{policy.SecretNameKey: "istio-other"}))
	env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-other", anySecret).Data, spiffeID(ns, "two"))
}

// The second edge sorts before the first by name, and has the older pod. The Secret is the
// first edge's nevertheless, and is renewed for it.
func TestTwoEdgesWithOneSecretNameRenewed(t *testing.T) {
	env := newEnvironment(t)
	env.mesh.configure(6*time.Second, nil)
	ns := env.createNamespace(nil, "z-first", "a-second")
	first := env.createEdge(ns, edgePod("front-first", "z-first", nil))
	env.awaitSecret(ns, "istio-certs", anySecret)
	env.createEdge(ns, edgePod("front-second", "a-second", nil))
	env.awaitEvent(ns, "Pod", "front-second", "Conflict")
	env.createEdge(ns, edgePod("front-first-new", "z-first", nil))
	env.deletePod(first)
	serials := map[string]bool{}
	for range 4 {
		s := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return !serials[s.Annotations[policy.SerialKey]] })
		env.mesh.requireBundle(t, s.Data, spiffeID(ns, "z-first"))
		serials[s.Annotations[policy.SerialKey]] = true
	}

	require.NoError(t, env.kube.CoreV1().Secrets(ns).Delete(t.Context(), "istio-certs", metav1.DeleteOptions{}))
	env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-certs", anySecret).Data, spiffeID(ns, "z-first"))

	env.mesh.configure(6*time.Second, errUnavailable)
	env.awaitMetric("isthmus_bundle_rejected_total", map[string]string{"reason": "expired"}, 1)
	env.mesh.configure(time.Hour, nil)
	healed := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool {
		at, err := time.Parse(time.RFC3339, s.Annotations[policy.NotAfterKey])
		return err == nil && time.Until(at) > time.Minute
	})
	env.mesh.requireBundle(t, healed.Data, spiffeID(ns, "z-first"))
}

// watchSecret watches istio-certs. The function that it returns lists the watch events since
// its last call.
func (env *environment) watchSecret(namespace string) func() []watch.EventType {
	env.t.Helper()
	current := env.awaitSecret(namespace, "istio-certs", anySecret)
	watcher, err := env.kube.CoreV1().Secrets(namespace).Watch(env.t.Context(), metav1.ListOptions{
		FieldSelector: "metadata.name=istio-certs", ResourceVersion: current.ResourceVersion,
	})
	require.NoError(env.t, err)
	env.t.Cleanup(watcher.Stop)
	return func() []watch.EventType {
		var seen []watch.EventType
		for {
			select {
			case e := <-watcher.ResultChan():
				seen = append(seen, e.Type)
			default:
				return seen
			}
		}
	}
}

// Nudges change one annotation, and take nothing of what was applied.
func TestNudge(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	published := env.awaitSecret(ns, "istio-certs", anySecret)
	nudged := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return s.Annotations[policy.NudgeKey] != "" })
	at, err := time.Parse(time.RFC3339, published.Annotations[policy.PublishedAtKey])
	require.NoError(t, err)
	nudge, err := time.Parse(time.RFC3339, nudged.Annotations[policy.NudgeKey])
	require.NoError(t, err)
	assert.WithinRange(t, nudge, at.Add(5*time.Second), at.Add(20*time.Second))
	delete(nudged.Annotations, policy.NudgeKey)
	assert.Equal(t, published.Annotations, nudged.Annotations)
	assert.Equal(t, published.Labels, nudged.Labels)
	assert.Equal(t, published.Data, nudged.Data)
	assert.Equal(t, published.Type, nudged.Type)

	env.mesh.setRoots(certtest.NewAuthority(t), env.mesh.currentSigner())
	rooted := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return !bytes.Equal(s.Data["ca.crt"], published.Data["ca.crt"]) })
	assert.NotEmpty(t, rooted.Annotations[policy.NudgeKey], "an apply leaves it")
}

// The chart's labels are on everything that the controller keeps, and come back.
func TestLabelsOfSecrets(t *testing.T) {
	env := newEnvironment(t, func(o *controller.Options) { o.Settings.SecretLabels = map[string]string{"edge": "blue"} })
	env.createTLSContextCRD()
	ns := env.createNamespace(requestTLSContext, "edge")
	env.createEdge(ns, edgePod("front", "edge", map[string]string{"edge": "red"}))
	isBlue := func(s *corev1.Secret) bool { return s.Labels["edge"] == "blue" }
	for _, name := range []string{"istio-certs", "istio-certs-roots"} {
		env.awaitSecret(ns, name, isBlue)
		_, err := env.kube.CoreV1().Secrets(ns).Patch(t.Context(), name, "application/merge-patch+json", []byte(`{"metadata":{"labels":{"edge":"red"}}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		env.awaitSecret(ns, name, isBlue)
	}
	for _, name := range []string{"istio-upstream", "istio-upstream-tcp"} {
		env.awaitNamedTLSContext(ns, name)
		o, err := env.dynamic.Resource(tlsContexts).Namespace(ns).Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, "blue", o.GetLabels()["edge"])
	}
}

func TestRootsChange(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	first := env.awaitSecret(ns, "istio-certs", anySecret)
	before, next := env.mesh.currentSigner(), certtest.NewAuthority(t)

	env.mesh.setRoots(next, before)
	both := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return bytes.Count(s.Data["ca.crt"], []byte("BEGIN")) == 2 })
	assert.Equal(t, first.Data["tls.crt"], both.Data["tls.crt"], "the certificate is not changed, both roots verify it")
	assert.NotEmpty(t, env.awaitEvent(ns, "Secret", "istio-certs", "RootChanged"))

	env.mesh.setRoots(next)
	after := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return !bytes.Equal(s.Data["tls.crt"], first.Data["tls.crt"]) })
	env.mesh.requireBundle(t, after.Data, spiffeID(ns, "edge"))
	assert.Equal(t, string(next.CertificatePEM), string(after.Data["ca.crt"]), "the old root is removed")
}
