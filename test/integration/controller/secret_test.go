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

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestSecretOfTheFirstPod(t *testing.T) {
	w := start(t)
	ns := w.namespace(nil, "edge")
	w.edge(ns, edgePod("front", "edge", nil))

	s := w.secret(ns, "istio-certs", anything)
	b := w.mesh.holds(t, s.Data, idOf(ns, "edge"))
	assert.Equal(t, corev1.SecretTypeTLS, s.Type)
	assert.Equal(t, string(s.Data["ca.crt"]), string(s.Data["root-cert.pem"]))
	assert.Equal(t, "isthmus", s.Labels["app.kubernetes.io/managed-by"])
	assert.Equal(t, b.Serial(), s.Annotations[policy.SerialKey])
	assert.Equal(t, "istio-ca", s.Annotations[policy.SourceKey])

	assert.Contains(t, w.event(ns, "Secret", "istio-certs", "Issued"), idOf(ns, "edge"))
	assert.Contains(t, w.event(ns, "Secret", "istio-certs", "Published"), b.Serial())
	of := map[string]string{"namespace": ns, "secret": "istio-certs", "spiffe_id": idOf(ns, "edge"), "source": "istio-ca"}
	w.reaches("isthmus_certificate_not_after_timestamp_seconds", of, float64(b.NotAfter().Unix()))
	w.reaches("isthmus_certificate_not_before_timestamp_seconds", of, float64(b.NotBefore().Unix()))
	w.reaches("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "sidecar", "state": "injected"}, 1)
	w.reaches("isthmus_publish_total", map[string]string{"result": "published"}, 1)
	w.reaches("isthmus_root_not_after_timestamp_seconds", nil, float64(w.mesh.pair().Certificate.NotAfter.Unix()))
	renew, ok := w.metric("isthmus_certificate_renew_after_timestamp_seconds", of)
	require.True(t, ok)
	assert.InDelta(t, float64(time.Now().Add(8*time.Hour).Unix()), renew, 120, "a third of 24 hours")
	assert.Empty(t, w.problems())
	assert.Equal(t, 1, w.mesh.count(ns))
}

func TestSecretBeforeTheFirstPod(t *testing.T) {
	w := start(t)
	ns := w.namespace(map[string]string{policy.ServiceAccountKey: "edge"}, "edge")
	s := w.secret(ns, "istio-certs", anything)
	w.mesh.holds(t, s.Data, idOf(ns, "edge"))
}

func TestNoSecretWithoutAnEdge(t *testing.T) {
	w := start(t)
	ns, other := w.namespace(nil, "edge"), w.namespace(nil, "edge")
	w.create(ns, edgePod("bare", "edge", nil))
	w.edge(other, edgePod("front", "edge", nil))
	w.secret(other, "istio-certs", anything)
	w.reaches("isthmus_edge_pods", map[string]string{"namespace": ns, "mode": "sidecar", "state": "missing"}, 1)
	_, err := w.kube.CoreV1().Secrets(ns).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	assert.Error(t, err)
}

func TestSecretHeals(t *testing.T) {
	w := start(t)
	ns := w.namespace(nil, "edge")
	w.edge(ns, edgePod("front", "edge", nil))
	first := w.secret(ns, "istio-certs", anything)
	api := w.kube.CoreV1().Secrets(ns)

	require.NoError(t, api.Delete(t.Context(), "istio-certs", metav1.DeleteOptions{}))
	second := w.secret(ns, "istio-certs", func(s *corev1.Secret) bool { return s.UID != first.UID })
	w.mesh.holds(t, second.Data, idOf(ns, "edge"))

	torn := second.DeepCopy()
	torn.Data["tls.key"] = certtest.NewAuthority(t).KeyPEM
	_, err := api.Update(t.Context(), torn, metav1.UpdateOptions{FieldManager: "kubectl-edit"})
	require.NoError(t, err)
	third := w.secret(ns, "istio-certs", func(s *corev1.Secret) bool { return !bytes.Equal(s.Data["tls.key"], torn.Data["tls.key"]) })
	w.mesh.holds(t, third.Data, idOf(ns, "edge"))
	assert.Contains(t, w.event(ns, "Secret", "istio-certs", "Rejected"), "key-mismatch")
	w.reaches("isthmus_bundle_rejected_total", map[string]string{"reason": "key-mismatch"}, 1)
}

func TestRenewal(t *testing.T) {
	w := start(t)
	w.mesh.set(9*time.Second, nil)
	ns := w.namespace(nil, "edge")
	w.edge(ns, edgePod("front", "edge", nil))
	s := w.secret(ns, "istio-certs", anything)
	serials := map[string]bool{s.Annotations[policy.SerialKey]: true}
	for range 2 {
		s = w.secret(ns, "istio-certs", func(s *corev1.Secret) bool { return !serials[s.Annotations[policy.SerialKey]] })
		w.mesh.holds(t, s.Data, idOf(ns, "edge"))
		serials[s.Annotations[policy.SerialKey]] = true
	}
}

func TestSourceAway(t *testing.T) {
	w := start(t)
	w.mesh.set(6*time.Second, nil)
	ns := w.namespace(nil, "edge")
	w.edge(ns, edgePod("front", "edge", nil))
	first := w.secret(ns, "istio-certs", anything)
	w.mesh.set(6*time.Second, errAway)
	assert.Contains(t, w.event(ns, "Secret", "istio-certs", "Failed"), "connection refused")
	second := w.secret(ns, "istio-certs", anything)
	assert.Equal(t, first.Data, second.Data, "the old one stays")
	w.mesh.set(time.Hour, nil)
	healed := w.secret(ns, "istio-certs", func(s *corev1.Secret) bool { return s.ResourceVersion != second.ResourceVersion })
	w.mesh.holds(t, healed.Data, idOf(ns, "edge"))
}

func TestStubbornSource(t *testing.T) {
	w := start(t)
	w.mesh.set(6*time.Second, nil)
	ns := w.namespace(nil, "edge")
	w.edge(ns, edgePod("front", "edge", nil))
	w.secret(ns, "istio-certs", anything)
	w.mesh.mu.Lock()
	w.mesh.stubborn = true
	w.mesh.mu.Unlock()
	require.Eventually(t, func() bool { return w.mesh.count(ns) > 1 }, patience, tick, "it is due")
	before, begun := w.mesh.count(ns), time.Now()
	require.Eventually(t, func() bool { return w.mesh.count(ns) >= before+10 }, patience, tick)
	assert.Greater(t, time.Since(begun), 500*time.Millisecond, "asked once with every look, and no more often")
}

func TestForeignSecret(t *testing.T) {
	w := start(t)
	ns := w.namespace(nil, "edge")
	api := w.kube.CoreV1().Secrets(ns)
	theirs, err := api.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "istio-certs"}, StringData: map[string]string{"mine": "1"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	w.edge(ns, edgePod("front", "edge", nil))

	assert.Contains(t, w.event(ns, "Secret", "istio-certs", "Conflict"), policy.AdoptKey)
	assert.Equal(t, theirs.ResourceVersion, w.secret(ns, "istio-certs", anything).ResourceVersion)
	got, _ := w.metric("isthmus_publish_total", map[string]string{"result": "foreign"})
	assert.Positive(t, got)
	assert.Zero(t, w.mesh.count(ns), "nothing is issued for a Secret that may not be written")

	theirs.Annotations = map[string]string{policy.AdoptKey: "true"}
	_, err = api.Update(t.Context(), theirs, metav1.UpdateOptions{})
	require.NoError(t, err)
	s := w.secret(ns, "istio-certs", func(s *corev1.Secret) bool { return len(s.Data["tls.crt"]) > 0 })
	w.mesh.holds(t, s.Data, idOf(ns, "edge"))
	assert.Equal(t, corev1.SecretTypeOpaque, s.Type, "an existing type is kept")
	assert.Equal(t, []byte("1"), s.Data["mine"], "what is not ours is left alone")
}

func TestTwoEdgesOneName(t *testing.T) {
	w := start(t)
	ns := w.namespace(nil, "one", "two")
	w.edge(ns, edgePod("front-one", "one", nil))
	w.secret(ns, "istio-certs", anything)
	writes := w.follow(ns)
	w.edge(ns, edgePod("front-two", "two", nil))

	note := w.event(ns, "Pod", "front-two", "Conflict")
	assert.Contains(t, note, "kept for service account one")
	assert.Contains(t, note, policy.SecretNameKey)
	refused := map[string]string{"result": "conflict"}
	require.Eventually(t, func() bool { got, _ := w.metric("isthmus_publish_total", refused); return got >= 10 }, patience, tick, "many looks")
	assert.Empty(t, writes(), "a stable conflict is no war of writes")
	w.mesh.holds(t, w.secret(ns, "istio-certs", anything).Data, idOf(ns, "one"))

	w.edge(ns, edgePod("front-three", "two", map[string]string{policy.SecretNameKey: "istio-other"}))
	w.mesh.holds(t, w.secret(ns, "istio-other", anything).Data, idOf(ns, "two"))
}

// The second comes before the first by every order, name or age: the Secret
// stays the first's all the same, and is renewed for it.
func TestTwoEdgesOneNameRenewed(t *testing.T) {
	w := start(t)
	w.mesh.set(6*time.Second, nil)
	ns := w.namespace(nil, "z-first", "a-second")
	first := w.edge(ns, edgePod("front-first", "z-first", nil))
	w.secret(ns, "istio-certs", anything)
	w.edge(ns, edgePod("front-second", "a-second", nil))
	w.event(ns, "Pod", "front-second", "Conflict")
	w.edge(ns, edgePod("front-first-new", "z-first", nil))
	w.end(first)
	serials := map[string]bool{}
	for range 4 {
		s := w.secret(ns, "istio-certs", func(s *corev1.Secret) bool { return !serials[s.Annotations[policy.SerialKey]] })
		w.mesh.holds(t, s.Data, idOf(ns, "z-first"))
		serials[s.Annotations[policy.SerialKey]] = true
	}

	require.NoError(t, w.kube.CoreV1().Secrets(ns).Delete(t.Context(), "istio-certs", metav1.DeleteOptions{}))
	w.mesh.holds(t, w.secret(ns, "istio-certs", anything).Data, idOf(ns, "z-first"))

	w.mesh.set(6*time.Second, errAway)
	w.reaches("isthmus_bundle_rejected_total", map[string]string{"reason": "expired"}, 1)
	w.mesh.set(time.Hour, nil)
	healed := w.secret(ns, "istio-certs", func(s *corev1.Secret) bool {
		at, err := time.Parse(time.RFC3339, s.Annotations[policy.NotAfterKey])
		return err == nil && time.Until(at) > time.Minute
	})
	w.mesh.holds(t, healed.Data, idOf(ns, "z-first"))
}

// follow watches istio-certs; the function that it returns lists the events that
// came since.
func (w *world) follow(namespace string) func() []watch.EventType {
	w.t.Helper()
	current := w.secret(namespace, "istio-certs", anything)
	watcher, err := w.kube.CoreV1().Secrets(namespace).Watch(w.t.Context(), metav1.ListOptions{
		FieldSelector: "metadata.name=istio-certs", ResourceVersion: current.ResourceVersion,
	})
	require.NoError(w.t, err)
	w.t.Cleanup(watcher.Stop)
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

func TestRootsChange(t *testing.T) {
	w := start(t)
	ns := w.namespace(nil, "edge")
	w.edge(ns, edgePod("front", "edge", nil))
	first := w.secret(ns, "istio-certs", anything)
	before, next := w.mesh.pair(), certtest.NewAuthority(t)

	w.mesh.trust(next, before)
	both := w.secret(ns, "istio-certs", func(s *corev1.Secret) bool { return bytes.Count(s.Data["ca.crt"], []byte("BEGIN")) == 2 })
	assert.Equal(t, first.Data["tls.crt"], both.Data["tls.crt"], "the certificate stays, it is good by both")
	assert.NotEmpty(t, w.event(ns, "Secret", "istio-certs", "RootChanged"))

	w.mesh.trust(next)
	after := w.secret(ns, "istio-certs", func(s *corev1.Secret) bool { return !bytes.Equal(s.Data["tls.crt"], first.Data["tls.crt"]) })
	w.mesh.holds(t, after.Data, idOf(ns, "edge"))
	assert.Equal(t, string(next.CertificatePEM), string(after.Data["ca.crt"]), "the old root is gone")
}
