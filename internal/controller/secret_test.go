package controller

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// oneSecret answers every read with the same Secret.
type oneSecret struct {
	Secrets
	current *corev1.Secret
}

func (s *oneSecret) Get(context.Context, string, string) (*corev1.Secret, error) {
	return s.current, nil
}

// After a conflict a publisher reads again, and must get the present Secret then.
func TestReadOnceReadsTheSecondTime(t *testing.T) {
	secret := func(version string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}
	}
	for name, current := range map[string]*corev1.Secret{
		"if one was there, expect that first":  secret("1"),
		"if none was there, expect that first": nil,
	} {
		t.Run(name, func(t *testing.T) {
			o := &readOnce{Secrets: &oneSecret{current: secret("2")}, current: current}
			first, err := o.Get(t.Context(), "edge", "istio-certs")
			if current == nil {
				assert.True(t, apierrors.IsNotFound(err), err)
			} else {
				require.NoError(t, err)
				assert.Equal(t, "1", first.ResourceVersion)
			}
			second, err := o.Get(t.Context(), "edge", "istio-certs")
			require.NoError(t, err)
			assert.Equal(t, "2", second.ResourceVersion)
		})
	}
}

// scriptedSource answers with its bundle or its error.
type scriptedSource struct {
	bundle  *certs.Bundle
	err     error
	asked   int
	removed []string
	// removeErr is the answer to Remove.
	removeErr error
}

func (s *scriptedSource) Bundle(context.Context, certs.Request) (*certs.Bundle, error) {
	s.asked++
	return s.bundle, s.err
}

func (s *scriptedSource) Remove(_ context.Context, namespace, secret string) error {
	s.removed = append(s.removed, namespace+"/"+secret)
	return s.removeErr
}

type rootsFunc func() ([]*x509.Certificate, error)

func (f rootsFunc) Roots() ([]*x509.Certificate, error) { return f() }
func (rootsFunc) OnChange(func())                       {}

// checker is a reconciler with one namespace and an API server in memory.
type checker struct {
	*reconciler
	state    *namespaceState
	store    *memory
	source   *scriptedSource
	former   *scriptedSource
	clock    *clocktesting.FakePassiveClock
	registry *prometheus.Registry
	recorded []string
}

func newChecker(t *testing.T, ca authority) *checker {
	t.Helper()
	c := &checker{
		store: &memory{}, source: &scriptedSource{}, former: &scriptedSource{},
		clock: clocktesting.NewFakePassiveClock(noon), registry: prometheus.NewRegistry(),
	}
	metrics, err := newMetrics(c.registry)
	require.NoError(t, err)
	o := Options{
		Settings: inject.Settings{}.WithDefaults(), Secrets: c.store, Clock: c.clock, Random: middle, CheckInterval: interval,
		Roots:   rootsFunc(func() ([]*x509.Certificate, error) { return ca.roots(), nil }),
		Mesh:    func(string) (patches.Mesh, error) { return patches.Mesh{}.WithDefaults(), nil },
		Sources: map[policy.Source]Source{policy.IstioCA: c.source, policy.CertManager: c.former},
	}
	versions := newSecretVersions(c.clock.Now, metrics.observeRepair)
	o.Secrets = trackedSecrets{Secrets: c.store, versions: versions}
	c.reconciler = &reconciler{Options: o, rules: rulesOf(o), metrics: metrics, versions: versions, namespaces: map[string]*namespaceState{}, waiting: map[string]bool{}, contexts: knownContexts(o.Settings)}
	c.state = newNamespaceState("edge", events.NewOnce(func(e events.Event) { c.recorded = append(c.recorded, e.Reason) }))
	return c
}

// check checks the Secret and returns the time until the next check.
func (c *checker) check(t *testing.T) (time.Duration, error) {
	t.Helper()
	next, err := c.checkSecret(t.Context(), c.state, "istio-certs", []claim{podClaim("front", "emissary", time.Hour)})
	return next.Sub(c.clock.Now()), err
}

func TestCheckSecretIssuesAndPublishes(t *testing.T) {
	ca := newAuthority(t)
	c := newChecker(t, ca)
	c.source.bundle = ca.bundle(t, "emissary", noon, noon.Add(24*time.Hour))
	next, err := c.check(t)
	require.NoError(t, err)
	assert.Equal(t, interval, next)
	assert.Equal(t, []string{EventIssued, EventPublished}, c.recorded)
	assert.Equal(t, c.source.bundle.Chain(), c.store.secret.Data["tls.crt"])
	assert.InDelta(t, 1, testutil.ToFloat64(c.metrics.publishes.WithLabelValues("published")), 0)
	assert.InDelta(t, float64(noon.Unix()), testutil.ToFloat64(c.metrics.lastSuccess), 0)
	assert.InDelta(t, float64(noon.Add(24*time.Hour).Unix()), testutil.ToFloat64(c.metrics.notAfter), 0)

	c.clock.SetTime(noon.Add(interval))
	_, err = c.check(t)
	require.NoError(t, err)
	assert.Equal(t, 1, c.source.asked, "nothing is due")
	assert.Equal(t, 1, c.store.applies)
	assert.Len(t, c.recorded, 2, "nothing new happened")
	assert.Equal(t, 1, c.secrets)

	c.forgetUnclaimed(c.state, nil)
	assert.Zero(t, c.secrets)
	assert.Zero(t, testutil.CollectAndCount(c.metrics.notAfter))
}

func TestCheckSecretKeepsWhatCouldNotBePublished(t *testing.T) {
	ca := newAuthority(t)
	c := newChecker(t, ca)
	c.source.bundle, c.store.fail = ca.bundle(t, "emissary", noon, noon.Add(24*time.Hour)), errors.New("connection refused")
	_, err := c.check(t)
	require.ErrorContains(t, err, "connection refused")
	_, err = c.check(t)
	require.Error(t, err)
	assert.Equal(t, 1, c.source.asked, "the bundle is published later")
	assert.Equal(t, []string{EventIssued, EventFailed}, c.recorded, "each once")

	c.store.fail = nil
	_, err = c.check(t)
	require.NoError(t, err)
	assert.Equal(t, 1, c.source.asked)
	assert.Equal(t, []string{EventIssued, EventFailed, EventPublished}, c.recorded)
	assert.InDelta(t, 2, testutil.ToFloat64(c.metrics.publishes.WithLabelValues("error")), 0)
}

func TestCheckSecretRemovesWhatTheFormerSourceLeft(t *testing.T) {
	ca := newAuthority(t)
	c := newChecker(t, ca)
	expired := ca.bundle(t, "emissary", noon.Add(-2*time.Hour), noon.Add(-time.Hour))
	c.store.secret = ca.secretOf(t, expired, policy.CertManager, noon.Add(-2*time.Hour))
	c.source.bundle = ca.bundle(t, "emissary", noon, noon.Add(24*time.Hour))
	_, err := c.check(t)
	require.NoError(t, err)
	assert.Equal(t, []string{"edge/istio-certs"}, c.former.removed)
	assert.Empty(t, c.source.removed)
	assert.Equal(t, []string{EventRejected, EventIssued, EventPublished}, c.recorded)
	assert.InDelta(t, 1, testutil.ToFloat64(c.metrics.rejections.WithLabelValues("expired")), 0)
}

func TestCheckSecretWaitsForAPendingSource(t *testing.T) {
	ca := newAuthority(t)
	c := newChecker(t, ca)
	c.source.err = certs.ErrPending
	next, err := c.check(t)
	require.NoError(t, err)
	assert.InDelta(t, pendingRetry, next, float64(pendingRetry/20))
	assert.Empty(t, c.recorded)
	c.clock.SetTime(noon.Add(pendingReportAfter + time.Second))
	_, err = c.check(t)
	require.NoError(t, err)
	assert.Equal(t, []string{EventFailed}, c.recorded)
}

// A retry comes within a third of what is left of the life of a namespace's certificate.
func TestRetriesFollowTheLifeThatIsLeft(t *testing.T) {
	ca := newAuthority(t)
	c := newChecker(t, ca)
	c.namespaces["edge"] = c.state
	assert.Zero(t, c.lifeLeft("edge"), "there is no certificate yet")
	assert.Zero(t, c.lifeLeft("unknown"))
	c.source.bundle = ca.bundle(t, "emissary", noon, noon.Add(24*time.Hour))
	_, err := c.check(t)
	require.NoError(t, err)
	c.clock.SetTime(noon.Add(24*time.Hour - 5*time.Minute))
	c.source.err = errors.New("connection refused")
	_, err = c.check(t)
	require.Error(t, err)
	c.state.secrets["ended"] = &secretState{notAfter: noon}
	c.state.secrets["later"] = &secretState{notAfter: noon.Add(48 * time.Hour)}
	c.setFirstEnd(c.state)
	assert.Equal(t, 5*time.Minute, c.lifeLeft("edge"))
	c.clock.SetTime(noon.Add(24 * time.Hour))
	assert.Zero(t, c.lifeLeft("edge"))
	c.setFirstEnd(c.state)
	assert.Equal(t, 24*time.Hour, c.lifeLeft("edge"), "a certificate that has ended does not hide one that will")
}

// The queue calls lifeLeft in a goroutine of its own, also while a worker has the
// namespace.
func TestLifeLeftWhileANamespaceIsReconciled(t *testing.T) {
	e := newEdges(t)
	ended := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				e.lifeLeft("edge")
			}
		}
	}()
	for i := range 10 {
		e.cluster.pods = nil
		if i%2 == 0 {
			e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
		}
		e.reconcile()
	}
	close(stop)
	<-ended
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
	e.reconcile()
	assert.Equal(t, 24*time.Hour, e.lifeLeft("edge"))
	e.cluster.pods = nil
	e.reconcile()
	assert.Zero(t, e.lifeLeft("edge"), "the Secret is not checked any longer")
}
