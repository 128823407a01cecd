package controller

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/isthmus-mesh/isthmus/internal/controller"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// makeDue brings the renewal point of a Secret forward to now.
func (env *environment) makeDue(namespace string) {
	env.t.Helper()
	env.annotateSecret(namespace, policy.RenewAfterKey, time.Now().UTC().Format(time.RFC3339))
}

func (env *environment) annotateSecret(namespace, key, value string) {
	env.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value)
	_, err := env.kube.CoreV1().Secrets(namespace).Patch(env.t.Context(), "istio-certs", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(env.t, err)
}

// eventCount counts the Events with this reason about the Secret.
func (env *environment) eventCount(namespace, reason string) int {
	env.t.Helper()
	list, err := env.kube.EventsV1().Events(namespace).List(env.t.Context(), metav1.ListOptions{})
	require.NoError(env.t, err)
	count := 0
	for _, e := range list.Items {
		if isAbout(e, "Secret", "istio-certs", reason) {
			count++
		}
	}
	return count
}

// A renewal fails again and again: new roots and labels are written nevertheless, and
// the failure is one Event.
func TestRootsAndLabelsDoNotWaitForTheSource(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(nil, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	first := env.awaitSecret(ns, "istio-certs", anySecret)
	env.mesh.configure(time.Hour, errUnavailable)
	env.makeDue(ns)
	require.Eventually(t, func() bool { return env.mesh.failedCount() > 3 }, waitTimeout, pollInterval)
	writes := env.watchSecret(ns)

	env.mesh.setRoots(certtest.NewAuthority(t), env.mesh.currentSigner())
	both := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return bytes.Count(s.Data["ca.crt"], []byte("BEGIN")) == 2 })
	assert.Equal(t, first.Data["tls.crt"], both.Data["tls.crt"])
	failed := env.mesh.failedCount()
	require.Eventually(t, func() bool { return env.mesh.failedCount() > failed+5 }, waitTimeout, pollInterval)
	assert.Len(t, writes(), 1, "one write")

	env.annotateSecret(ns, policy.NotAfterKey, "never")
	env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool {
		return s.Annotations[policy.NotAfterKey] == first.Annotations[policy.NotAfterKey]
	})
	assert.Equal(t, 1, env.eventCount(ns, "Failed"))

	env.mesh.configure(time.Hour, nil)
	env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return !bytes.Equal(s.Data["tls.crt"], first.Data["tls.crt"]) })
}

// The edge reads the Secret by a TLSContext of its own, and may see new roots only with a
// new certificate: its renewal is brought forward.
func TestChangeOfRootsBringsTheRenewalForward(t *testing.T) {
	env := newEnvironment(t)
	ns := env.createNamespace(map[string]string{policy.DeliveryKey: "secret"}, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	first := env.awaitSecret(ns, "istio-certs", anySecret)
	changed := time.Now()
	env.mesh.setRoots(certtest.NewAuthority(t), env.mesh.currentSigner())
	both := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return bytes.Count(s.Data["ca.crt"], []byte("BEGIN")) == 2 })
	if !bytes.Equal(first.Data["tls.crt"], both.Data["tls.crt"]) {
		return // the new certificate is there already
	}
	renew, err := time.Parse(time.RFC3339, both.Annotations[policy.RenewAfterKey])
	require.NoError(t, err)
	assert.Less(t, renew.Sub(changed), 10*time.Minute+time.Second)
}

// withMesh has a controller take the mesh's settings from a function.
func withMesh(settings func(revision string) (patches.Mesh, error)) func(*controller.Options) {
	return func(o *controller.Options) { o.Mesh = settings }
}

func TestMigrationOfTheTrustDomain(t *testing.T) {
	var domain atomic.Value
	domain.Store("cluster.local")
	env := newEnvironment(t, withMesh(func(string) (patches.Mesh, error) {
		return patches.Mesh{TrustDomain: domain.Load().(string)}.WithDefaults(), nil
	}))
	ns := env.createNamespace(nil, "edge", "a-second")
	env.createEdge(ns, edgePod("front", "edge", nil))
	env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-certs", anySecret).Data, spiffeID(ns, "edge"))
	env.createEdge(ns, edgePod("a-front", "a-second", nil))
	env.awaitEvent(ns, "Pod", "a-front", "Conflict")

	domain.Store("new.example")
	id := "spiffe://new.example/ns/" + ns + "/sa/edge"
	moved := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return s.Annotations[policy.SPIFFEIDKey] == id })
	env.mesh.requireBundle(t, moved.Data, id)
}

func TestPodOfAMissingRevisionDoesNotBlockOthers(t *testing.T) {
	env := newEnvironment(t, withMesh(func(revision string) (patches.Mesh, error) {
		if revision != "" {
			return patches.Mesh{}, fmt.Errorf("no revision %q", revision)
		}
		return patches.Mesh{}.WithDefaults(), nil
	}))
	ns := env.createNamespace(nil, "edge", "former")
	old := edgePod("old", "former", nil)
	old.Labels = map[string]string{policy.IstioRevisionLabel: "1-20"}
	env.createEdge(ns, old)
	env.createEdge(ns, edgePod("front", "edge", nil))
	env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-certs", anySecret).Data, spiffeID(ns, "edge"))
	assert.Equal(t, `secret istio-certs does not take service account former into account: no revision "1-20"`, env.awaitEvent(ns, "Pod", "old", "ClaimIgnored"))
}

// A pod of another service account asks for a publisher. The Secret is not its own, so
// it neither chooses the source nor gets the right to write.
func TestPublisherOfAnotherServiceAccount(t *testing.T) {
	env := newEnvironment(t)
	env.mesh.configure(9*time.Second, nil)
	ns := env.createNamespace(nil, "edge", "other", "publishing")
	env.createEdge(ns, edgePod("front", "edge", nil))
	first := env.awaitSecret(ns, "istio-certs", anySecret)
	env.createEdge(ns, edgePod("front-other", "other", map[string]string{policy.PublishKey: "true"}))
	env.awaitEvent(ns, "Pod", "front-other", "Conflict")
	env.createEdge(ns, edgePod("front-publishing", "publishing", map[string]string{policy.PublishKey: "true", policy.SecretNameKey: "istio-other"}))
	assert.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: "publishing", Namespace: ns}}, env.awaitBinding(ns).Subjects)
	renewed := env.awaitSecret(ns, "istio-certs", func(s *corev1.Secret) bool { return !bytes.Equal(s.Data["tls.crt"], first.Data["tls.crt"]) })
	env.mesh.requireBundle(t, renewed.Data, spiffeID(ns, "edge"))
}

// shiftedClock is the real clock, ahead by a time that a test sets.
type shiftedClock struct {
	clock.RealClock
	ahead atomic.Int64
}

func (c *shiftedClock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *shiftedClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// No publisher writes, as when its pod never starts: the controller does, and says so.
func TestControllerPublishesWhenNoPublisherDoes(t *testing.T) {
	ahead := &shiftedClock{}
	env := newEnvironment(t, func(o *controller.Options) { o.Clock = ahead })
	ns := env.createNamespace(map[string]string{policy.SourceKey: "agent"}, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	env.awaitBinding(ns)
	assert.Zero(t, env.mesh.issuedCount(ns), "the publishers have two minutes")
	ahead.ahead.Store(int64(3 * time.Minute))
	s := env.awaitSecret(ns, "istio-certs", anySecret)
	env.mesh.requireBundle(t, s.Data, spiffeID(ns, "edge"))
	assert.Equal(t, "istio-ca", s.Annotations[policy.SourceKey])
	assert.Contains(t, env.awaitEvent(ns, "Secret", "istio-certs", "PublisherSilent"), "so the controller requests one (source istio-ca)")
	require.Eventually(t, func() bool { return env.eventCount(ns, "Published") == 1 }, waitTimeout, pollInterval)

	ahead.ahead.Store(int64(18 * time.Hour))
	env.awaitSecret(ns, "istio-certs", func(now *corev1.Secret) bool {
		return now.Annotations[policy.SerialKey] != s.Annotations[policy.SerialKey]
	})
	assert.Equal(t, 1, env.eventCount(ns, "PublisherSilent"))
}
