package serving

import (
	"crypto/x509"
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"
)

const (
	caTTL    = 12 * time.Hour
	leafTTL  = 2 * time.Hour
	delay    = 20 * time.Minute
	interval = 4 * time.Minute
	// lag is how late the slowest API server and the slowest replica are.
	lag = 12 * time.Minute
)

// simulation runs rotators and replicas step by step, in a random order, on a fake
// clock. After every step, API servers that learn of a caBundle late verify the leaf of
// every replica.
type simulation struct {
	t        *testing.T
	random   *rand.Rand
	clock    *clocktesting.FakeClock
	cluster  *cluster
	rotators []*Rotator // more than one while a former leader has not noticed that it lost its lease
	replicas []*replica
	history  []caBundles
	log      logr.Logger
	created  int // rotators and replicas, to number them in logs
}

// caBundles are the caBundles of both configurations at one time.
type caBundles struct {
	at                   time.Time
	mutating, validating []byte
}

// replica is a Source that reconciles late, by up to lag.
type replica struct {
	*Source
	name        string
	reconcileAt time.Time
	readySince  time.Time
	verified    map[string]*x509.Certificate
}

func newSimulation(t *testing.T, seed int64, replicas int) *simulation {
	s := &simulation{
		t: t, random: rand.New(rand.NewSource(seed)), cluster: newCluster(t), log: testr.New(t),
		clock: clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
	}
	s.rotators = []*Rotator{s.newRotator()}
	for range replicas {
		s.replicas = append(s.replicas, s.newReplica())
	}
	return s
}

func (s *simulation) options(name string) Options {
	s.created++
	return Options{
		Client: s.cluster, Namespace: testNamespace, SecretName: testSecret, ConfigurationName: testConfiguration,
		DNSNames: []string{"isthmus.test"}, CATTL: caTTL, LeafTTL: leafTTL, PropagationDelay: delay,
		Clock: s.clock, Log: s.log.WithName(fmt.Sprintf("%s-%d", name, s.created)),
	}
}

func (s *simulation) newRotator() *Rotator {
	r, err := NewRotator(s.options("rotator"))
	require.NoError(s.t, err)
	return r
}

func (s *simulation) newReplica() *replica {
	source, err := NewSource(s.options("replica"))
	require.NoError(s.t, err)
	return &replica{Source: source, name: fmt.Sprintf("replica-%d", s.created), verified: map[string]*x509.Certificate{}}
}

// issuer is the authority of the replica's leaf; nil before the first leaf.
func (r *replica) issuer() *authority { return r.leaf.Load().issuedBy() }

// certificate is the replica's leaf; nil before the first.
func (r *replica) certificate() *x509.Certificate {
	if current := r.leaf.Load(); current != nil {
		return current.Leaf
	}
	return nil
}

// step advances the clock by interval, and reconciles every rotator and replica in a
// random order.
func (s *simulation) step() {
	s.clock.Step(interval)
	s.cluster.ClearActions()
	for _, i := range s.random.Perm(len(s.replicas) + len(s.rotators)) {
		if i < len(s.replicas) {
			s.reconcileLate(s.replicas[i])
			continue
		}
		for range 1 + s.random.Intn(3) {
			s.rotators[i-len(s.replicas)].reconcile(s.t.Context())
		}
	}
	s.history = append(s.history, caBundles{
		at:         s.clock.Now(),
		mutating:   s.cluster.mutatingConfiguration().Webhooks[0].ClientConfig.CABundle,
		validating: s.cluster.validatingConfiguration().Webhooks[0].ClientConfig.CABundle,
	})
}

// reconcileLate reconciles a replica, at random times up to lag apart.
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

// review fails when an API server would refuse the leaf of a replica that has been
// ready for longer than lag. An API server knows any of the caBundles of the last lag.
func (s *simulation) review() error {
	now := s.clock.Now()
	for _, r := range s.replicas {
		if r.readySince.IsZero() {
			if r.Ready() == nil {
				r.readySince = now
			}
			continue
		}
		if now.Sub(r.readySince) <= lag {
			continue
		}
		for _, known := range s.history {
			if now.Sub(known.at) > lag {
				continue
			}
			for kind, bundle := range map[string][]byte{mutating: known.mutating, validating: known.validating} {
				if err := r.verify(bundle, now); err != nil {
					return fmt.Errorf("%s: an API server that knows the %s of %s ago refuses the leaf that %s has from %s: %w",
						now.Format(time.DateTime), kind, now.Sub(known.at), r.name, r.certificate().Issuer.CommonName, err)
				}
			}
		}
	}
	return nil
}

// verify verifies the leaf as an API server does that knows bundle. It remembers
// what verified, since only time can change that.
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

// run steps through length, calls afterStep after each step, and returns the first
// refused review.
func (s *simulation) run(length time.Duration, afterStep func(step int)) error {
	for i := range int(length / interval) {
		s.step()
		if afterStep != nil {
			afterStep(i)
		}
		if err := s.review(); err != nil {
			return err
		}
	}
	return nil
}
