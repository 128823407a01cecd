package controller

import (
	"bytes"
	"slices"
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

// withoutTimers makes watches the only way to notice anything within a test.
func withoutTimers(o *controller.Options) { o.CheckInterval, o.ScanInterval = time.Hour, time.Hour }

// Every kind of damage is repaired although no check is due for an hour.
func TestChangedSecretIsRepairedAtOnce(t *testing.T) {
	env := newEnvironment(t, withoutTimers)
	ns := env.createNamespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	env.awaitSecret(ns, "istio-certs", anySecret)
	api := env.kube.CoreV1().Secrets(ns)
	update := func(name string, change func(*corev1.Secret)) {
		s := env.awaitSecret(ns, name, anySecret)
		change(s)
		_, err := api.Update(t.Context(), s, metav1.UpdateOptions{FieldManager: "kubectl-edit"})
		require.NoError(t, err)
	}
	isGood := func(s *corev1.Secret) bool {
		_, err := env.mesh.bundle(s.Data, parseID(t, spiffeID(ns, "edge")))
		return err == nil && bytes.Equal(s.Data["root-cert.pem"], s.Data["ca.crt"])
	}
	for name, damage := range map[string]func(){
		"deleted": func() { require.NoError(t, api.Delete(t.Context(), "istio-certs", metav1.DeleteOptions{})) },
		"another key": func() {
			update("istio-certs", func(s *corev1.Secret) { s.Data["tls.key"] = certtest.NewAuthority(t).KeyPEM })
		},
		"no chain": func() { update("istio-certs", func(s *corev1.Secret) { s.Data["tls.crt"] = []byte{} }) },
		"no roots": func() { update("istio-certs", func(s *corev1.Secret) { delete(s.Data, "root-cert.pem") }) },
	} {
		t.Run(name, func(t *testing.T) {
			env := &environment{t: t, kube: env.kube, mesh: env.mesh}
			damage()
			env.awaitSecret(ns, "istio-certs", isGood)
		})
	}
	env.awaitRepairs(4)
	assert.Empty(t, env.lintMetrics())
}

// What somebody else adds is no damage: it stays, and nothing is written.
func TestHarmlessChangeIsLeft(t *testing.T) {
	env := newEnvironment(t, withoutTimers)
	ns := env.createNamespace(nil, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	s := env.awaitSecret(ns, "istio-certs", anySecret)
	writes := env.watchSecret(ns)
	s.Annotations["example.com/mine"] = "1"
	changed, err := env.kube.CoreV1().Secrets(ns).Update(t.Context(), s, metav1.UpdateOptions{FieldManager: "kubectl-edit"})
	require.NoError(t, err)
	require.NoError(t, env.kube.CoreV1().Secrets(ns).Delete(t.Context(), "istio-certs", metav1.DeleteOptions{}))
	env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return s.UID != changed.UID })
	var seen []watch.EventType
	require.Eventually(t, func() bool {
		seen = append(seen, writes()...)
		return slices.Contains(seen, watch.Added)
	}, waitTimeout, pollInterval)
	assert.Equal(t, []watch.EventType{watch.Modified, watch.Deleted, watch.Added}, seen)
	env.awaitRepairs(1)
}

// awaitRepairs waits until the metric has counted that many repairs.
func (env *environment) awaitRepairs(want uint64) {
	env.t.Helper()
	assert.Eventually(env.t, func() bool { return env.observations("isthmus_secret_repair_duration_seconds") == want }, waitTimeout, pollInterval)
}
