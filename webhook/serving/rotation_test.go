package serving

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"
)

const (
	caTTL    = 12 * time.Hour
	leafTTL  = 2 * time.Hour
	delay    = 20 * time.Minute
	interval = 4 * time.Minute
	// lag is how far behind the slowest API server and the slowest replica are.
	lag = 12 * time.Minute
)

// simulation runs a keeper and replicas step by step in a random order on a fake
// clock, beside API servers that learn of a caBundle late, and reviews at every step.
type simulation struct {
	t        *testing.T
	random   *rand.Rand
	clock    *clocktesting.FakeClock
	cluster  *cluster
	keepers  []*Keeper // more than one while a former leader does not know it yet
	replicas []*replica
	bundles  []published
	log      logr.Logger
	made     int
}

// published is what both configurations carried, each of which an API server goes by.
type published struct {
	at      time.Time
	bundles [2][]byte
}

// replica is a Source that reconciles late, by as much as lag.
type replica struct {
	*Source
	name        string
	reconcileAt time.Time
	readyAt     time.Time
	verified    map[string]*x509.Certificate
}

func newSimulation(t *testing.T, seed int64, replicas int) *simulation {
	s := &simulation{
		t: t, random: rand.New(rand.NewSource(seed)), cluster: newCluster(t), log: testr.New(t),
		clock: clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
	}
	s.keepers = []*Keeper{s.keep()}
	for range replicas {
		s.replicas = append(s.replicas, s.start())
	}
	return s
}

func (s *simulation) options(name string) Options {
	s.made++
	return Options{
		Client: s.cluster, Namespace: testNamespace, SecretName: testSecret, ConfigurationName: testConfiguration,
		DNSNames: []string{"isthmus.test"}, CATTL: caTTL, LeafTTL: leafTTL, PropagationDelay: delay,
		Clock: s.clock, Log: s.log.WithName(fmt.Sprintf("%s-%d", name, s.made)),
	}
}

func (s *simulation) keep() *Keeper {
	k, err := NewKeeper(s.options("keeper"))
	require.NoError(s.t, err)
	return k
}

func (s *simulation) start() *replica {
	source, err := New(s.options("replica"))
	require.NoError(s.t, err)
	return &replica{Source: source, name: fmt.Sprintf("replica-%d", s.made), verified: map[string]*x509.Certificate{}}
}

// signer is the authority of the replica's leaf; nil before the first leaf.
func (r *replica) signer() *pair { return r.leaf.Load().issuedBy() }

// certificate is the replica's leaf; nil before the first.
func (r *replica) certificate() *x509.Certificate {
	if current := r.leaf.Load(); current != nil {
		return current.Leaf
	}
	return nil
}

// step advances the clock by interval, and every keeper and replica reconciles, in a random order.
func (s *simulation) step() {
	s.clock.Step(interval)
	s.cluster.ClearActions()
	for _, i := range s.random.Perm(len(s.replicas) + len(s.keepers)) {
		if i < len(s.replicas) {
			s.reconcileLate(s.replicas[i])
			continue
		}
		// Without a change to react to, a keeper reconciles now and then.
		for range 1 + s.random.Intn(3) {
			s.keepers[i-len(s.replicas)].reconcile(s.t.Context())
		}
	}
	s.bundles = append(s.bundles, published{s.clock.Now(), [2][]byte{
		s.cluster.configuration().Webhooks[0].ClientConfig.CABundle,
		s.cluster.validation().Webhooks[0].ClientConfig.CABundle,
	}})
}

// reconcileLate reconciles a replica that is slow: up to lag passes between two times.
func (s *simulation) reconcileLate(r *replica) {
	now := s.clock.Now()
	if now.Before(r.reconcileAt) {
		return
	}
	r.reconcileAt = now.Add(time.Duration(s.random.Int63n(int64(lag))))
	for range 1 + s.random.Intn(3) {
		r.reconcile(s.t.Context())
	}
}

// review fails when an API server that knows any of the bundles of the last lag
// refuses the leaf of a replica that was ready for so long.
func (s *simulation) review() error {
	now := s.clock.Now()
	for _, r := range s.replicas {
		if r.readyAt.IsZero() {
			if r.Ready() == nil {
				r.readyAt = now
			}
			continue
		}
		if now.Sub(r.readyAt) <= lag {
			continue
		}
		for _, b := range s.bundles {
			if now.Sub(b.at) > lag {
				continue
			}
			for i, kind := range []string{mutating, validating} {
				if err := r.verify(b.bundles[i], now); err != nil {
					return fmt.Errorf("%s: %s shows a leaf of %s to an API server that goes by a %s and is %s late: %w",
						now.Format(time.DateTime), r.name, r.certificate().Issuer.CommonName, kind, now.Sub(b.at), err)
				}
			}
		}
	}
	return nil
}

// verify remembers what verified: nothing but the time changes.
func (r *replica) verify(bundle []byte, now time.Time) error {
	certificate := r.certificate()
	if r.verified[string(bundle)] == certificate && now.Before(certificate.NotAfter) {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle)
	_, err := certificate.Verify(x509.VerifyOptions{Roots: pool, DNSName: "isthmus.test", CurrentTime: now})
	if err == nil {
		r.verified[string(bundle)] = certificate
	}
	return err
}

func (s *simulation) run(length time.Duration, also func(step int)) error {
	for i := range int(length / interval) {
		s.step()
		if also != nil {
			also(i)
		}
		if err := s.review(); err != nil {
			return err
		}
	}
	return nil
}

func TestNoReviewFailsThroughRotations(t *testing.T) {
	for replicas := 1; replicas <= 3; replicas++ {
		t.Run(fmt.Sprintf("%d replicas", replicas), func(t *testing.T) {
			s := newSimulation(t, 1, replicas)
			signers := map[string]bool{}
			require.NoError(t, s.run(4*caTTL, func(int) {
				if signer := s.replicas[0].signer(); signer != nil {
					signers[signer.root.Subject.CommonName] = true
				}
			}))
			assert.GreaterOrEqual(t, len(signers), 5, "the CA rotates at two thirds of its life")
			for _, r := range s.replicas {
				assert.True(t, r.signer().is(s.replicas[0].signer()), "all replicas sign with one CA")
			}
			assert.Equal(t, "me", s.cluster.secret().Annotations["keep"])
			assert.Equal(t, corev1.SecretTypeOpaque, s.cluster.secret().Type)
		})
	}
}

func TestReviewsWouldFailWithoutTheWaits(t *testing.T) {
	s := newSimulation(t, 1, 2)
	s.keepers[0].planner.delay = 0
	assert.ErrorContains(t, s.run(2*caTTL, nil), "certificate signed by unknown authority", "the simulation notices what it is for")
}

// A leader that lost its lease may not know it yet.
func TestTwoKeepersDoNoHarm(t *testing.T) {
	s := newSimulation(t, 7, 2)
	s.keepers = append(s.keepers, s.keep())
	signers := map[string]bool{}
	require.NoError(t, s.run(4*caTTL, func(int) {
		if signer := s.replicas[0].signer(); signer != nil {
			signers[signer.root.Subject.CommonName] = true
		}
	}))
	assert.GreaterOrEqual(t, len(signers), 5)
}

func TestReplicasServeOnWithoutAKeeper(t *testing.T) {
	s := newSimulation(t, 8, 2)
	require.NoError(t, s.run(3*delay, nil))
	s.keepers = nil
	before, writes := s.replicas[0].signer(), s.cluster.writes.Load()
	// Two thirds of the CA's life pass, and a rotation is due that nobody begins.
	leaves := map[string]bool{}
	require.NoError(t, s.run(caTTL-3*delay-2*interval, func(step int) {
		if step%10 == 9 {
			s.replicas[1] = s.start()
		}
		leaves[s.replicas[0].certificate().SerialNumber.String()] = true
	}))
	assert.Greater(t, len(leaves), 5, "leaves are renewed")
	assert.True(t, before.is(s.replicas[0].signer()))
	assert.True(t, before.is(s.replicas[1].signer()), "a replica that starts signs too")
	assert.Equal(t, writes, s.cluster.writes.Load(), "replicas write nothing")

	s.keepers = []*Keeper{s.keep()}
	s.step()
	s.step()
	assert.NotNil(t, readState(s.cluster.secret(), s.clock.Now(), state{}).next, "a keeper that comes back goes on")
}

func TestReplicasGoOnWhereOthersStopped(t *testing.T) {
	s := newSimulation(t, 2, 2)
	var promotions int
	previous := ""
	require.NoError(t, s.run(4*caTTL, func(step int) {
		if signing := string(s.cluster.secret().Data[corev1.TLSCertKey]); signing != previous {
			promotions++
			previous = signing
		}
		// No keeper and no replica lives as long as either wait.
		if step%4 == 3 {
			s.keepers[0] = s.keep()
			s.replicas[s.random.Intn(len(s.replicas))] = s.start()
		}
	}))
	assert.GreaterOrEqual(t, promotions, 5)
}

func TestNoReviewFailsThroughDamage(t *testing.T) {
	damages := []struct {
		name string
		do   func(*corev1.Secret)
	}{
		{"emptied", func(s *corev1.Secret) { s.Data, s.Annotations = nil, nil }},
		{"signing CA gone", func(s *corev1.Secret) {
			delete(s.Data, corev1.TLSCertKey)
			delete(s.Data, corev1.TLSPrivateKeyKey)
		}},
		{"key of another", func(s *corev1.Secret) {
			other, err := newPair(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 1000*time.Hour)
			if err == nil {
				s.Data[corev1.TLSPrivateKeyKey] = other.keyPEM
			}
		}},
		{"key is no PEM", func(s *corev1.Secret) { s.Data[corev1.TLSPrivateKeyKey] = []byte("nonsense") }},
		{"certificate is no PEM", func(s *corev1.Secret) { s.Data[corev1.TLSCertKey] = []byte("nonsense") }},
		{"bundle is no PEM", func(s *corev1.Secret) { s.Data[BundleKey] = []byte("nonsense") }},
		{"bundle gone", func(s *corev1.Secret) { delete(s.Data, BundleKey) }},
		{"next is nonsense", func(s *corev1.Secret) { s.Data[NextCertKey] = []byte("nonsense") }},
		{"phase is nonsense", func(s *corev1.Secret) { s.Annotations[PhaseAnnotation] = "nonsense" }},
		{"since is nonsense", func(s *corev1.Secret) { s.Annotations[PhaseSinceAnnotation] = "yesterday" }},
		{"since is far away", func(s *corev1.Secret) { s.Annotations[PhaseSinceAnnotation] = "2030-01-01T00:00:00Z" }},
		{"annotations gone", func(s *corev1.Secret) { s.Annotations = nil }},
		{"another CA put in by hand", func(s *corev1.Secret) {
			other, err := newPair(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 1000*time.Hour)
			if err == nil {
				s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey], s.Data[BundleKey] = other.certPEM, other.keyPEM, other.certPEM
			}
		}},
	}
	for _, damage := range damages {
		t.Run(damage.name, func(t *testing.T) {
			s := newSimulation(t, 3, 2)
			// Every 92 minutes hits every phase of some rotation.
			require.NoError(t, s.run(lives*caTTL, func(step int) {
				if step%23 == 22 {
					s.cluster.editSecret(damage.do)
				}
				if step%46 == 45 {
					s.keepers[0] = s.keep() // it has not seen what was there before
				}
			}))
			require.NoError(t, s.run(3*delay, nil))
			healed := readState(s.cluster.secret(), s.clock.Now(), state{})
			assert.Empty(t, healed.damaged)
			assert.NotNil(t, healed.signing)
			for _, webhook := range s.cluster.configuration().Webhooks {
				assert.Equal(t, string(s.cluster.secret().Data[BundleKey]), string(webhook.ClientConfig.CABundle))
			}
			for _, webhook := range s.cluster.validation().Webhooks {
				assert.Equal(t, string(s.cluster.secret().Data[BundleKey]), string(webhook.ClientConfig.CABundle))
			}
		})
	}
	t.Run("anything at any time, keepers and replicas come and go", func(t *testing.T) {
		for seed := range int64(seeds) {
			s := newSimulation(t, seed, 3)
			s.log = logr.Discard()
			require.NoError(t, s.run(4*caTTL, func(int) {
				if s.random.Intn(30) == 0 {
					s.cluster.editSecret(damages[s.random.Intn(len(damages))].do)
				}
				if s.random.Intn(30) == 0 {
					s.replicas[s.random.Intn(len(s.replicas))] = s.start()
				}
				if s.random.Intn(30) == 0 {
					s.keepers[0] = s.keep()
				}
			}), "seed %d", seed)
		}
	})
}

func TestWrongCABundleIsSetRight(t *testing.T) {
	wrong, err := newPair(time.Now(), time.Hour)
	require.NoError(t, err)
	for name, bundle := range map[string][]byte{"nonsense": []byte("nonsense"), "another root": wrong.certPEM, "nothing": nil} {
		t.Run(name, func(t *testing.T) {
			s := newSimulation(t, 4, 2)
			require.NoError(t, s.run(3*delay, nil))
			before := s.cluster.configuration()
			s.cluster.editConfiguration(func(c *admissionregistrationv1.MutatingWebhookConfiguration) {
				c.Webhooks[1].ClientConfig.CABundle = bundle
			})
			secret := s.cluster.secret()
			s.step()
			after := s.cluster.configuration()
			before.ResourceVersion, after.ResourceVersion = "", ""
			before.ManagedFields, after.ManagedFields = nil, nil // the fake's own, with a time
			assert.Equal(t, before, after, "nothing but the caBundle was touched")
			assert.Equal(t, secret, s.cluster.secret())
		})
	}
}

func TestWrongCABundleOfTheValidationIsSetRight(t *testing.T) {
	s := newSimulation(t, 4, 2)
	require.NoError(t, s.run(3*delay, nil))
	before := s.cluster.validation()
	s.cluster.editValidation(func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
		c.Webhooks[1].ClientConfig.CABundle = nil
	})
	s.step()
	after := s.cluster.validation()
	before.ResourceVersion, after.ResourceVersion = "", ""
	before.ManagedFields, after.ManagedFields = nil, nil // the fake's own, with a time
	assert.Equal(t, before, after, "nothing but the caBundle was touched")
}

// The validating configuration says things at kubectl apply, no more: whoever
// deletes it has the rotation go on, and whoever brings it back has it filled.
func TestRotationNeedsNoValidation(t *testing.T) {
	s := newSimulation(t, 9, 2)
	require.NoError(t, s.run(3*delay, nil))
	before := s.replicas[0].signer()
	configurations := s.cluster.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	require.NoError(t, configurations.Delete(t.Context(), testConfiguration, metav1.DeleteOptions{}))
	for range int(caTTL / interval) {
		s.clock.Step(interval)
		for _, r := range s.replicas {
			r.reconcile(t.Context())
		}
		s.keepers[0].reconcile(t.Context())
		s.keepers[0].reconcile(t.Context())
	}
	assert.False(t, before.is(s.replicas[0].signer()), "the CA was rotated")
	_, problem := s.keepers[0].status()
	assert.NoError(t, problem)

	_, err := configurations.Create(t.Context(), bareValidation(), metav1.CreateOptions{})
	require.NoError(t, err)
	s.step()
	s.step()
	assert.Equal(t, string(s.cluster.secret().Data[BundleKey]), string(s.cluster.validation().Webhooks[0].ClientConfig.CABundle))
}

// A next CA signs only when API servers know it by both configurations.
func TestNextCASignsWhenBothCarryIt(t *testing.T) {
	s := newSimulation(t, 10, 1)
	require.NoError(t, s.run(3*delay, nil))
	signing := func() string { return string(s.cluster.secret().Data[corev1.TLSCertKey]) }
	before := signing()
	s.cluster.PrependReactor("patch", "validatingwebhookconfigurations", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("refused by somebody's policy")
	})
	require.NoError(t, s.run(caTTL-2*time.Hour, nil))
	assert.Equal(t, before, signing())
	_, problem := s.keepers[0].status()
	assert.ErrorContains(t, problem, `patch validatingwebhookconfiguration "isthmus-webhook": refused by somebody's policy`)
}

func TestAnOlderBundleNeverReplacesANewerOne(t *testing.T) {
	s := newSimulation(t, 5, 1)
	require.NoError(t, s.run(3*delay, nil))
	older := viewOf(s.cluster.configuration())
	newer, err := newPair(s.clock.Now(), caTTL)
	require.NoError(t, err)
	s.cluster.editConfiguration(func(c *admissionregistrationv1.MutatingWebhookConfiguration) {
		c.Webhooks[0].ClientConfig.CABundle, c.Webhooks[1].ClientConfig.CABundle = newer.certPEM, newer.certPEM
	})
	stale, err := newPair(s.clock.Now(), caTTL)
	require.NoError(t, err)

	err = s.keepers[0].inject(t.Context(), []view{older, validatingViewOf(s.cluster.validation())}, roots{stale.root})
	assert.ErrorIs(t, err, errCollided)
	assert.Equal(t, string(newer.certPEM), string(s.cluster.configuration().Webhooks[0].ClientConfig.CABundle))
}

func TestAStrangersWritesMakeNoStorm(t *testing.T) {
	s := newSimulation(t, 6, 1)
	require.NoError(t, s.run(3*delay, nil))
	before := s.cluster.writes.Load()
	for range 200 {
		s.cluster.editConfiguration(func(c *admissionregistrationv1.MutatingWebhookConfiguration) {
			c.Webhooks[0].ClientConfig.CABundle = nil
		})
		s.keepers[0].reconcile(t.Context())
	}
	assert.LessOrEqual(t, s.cluster.writes.Load()-before, int64(200+20), "the stranger's, and twenty of ours")
	_, problem := s.keepers[0].status()
	assert.EqualError(t, problem, `mutatingwebhookconfiguration "isthmus-webhook": something else keeps changing its caBundle: take it away from cainjector or from whatever applies it`)
	require.NoError(t, s.run(delay, nil))
	assert.Equal(t, string(s.cluster.secret().Data[BundleKey]), string(s.cluster.configuration().Webhooks[0].ClientConfig.CABundle), "set right when the stranger stops")
}
