package controller

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// life is a Secret in virtual time, with an API server in memory that counts.
type life struct {
	t      *testing.T
	ca     authority
	store  *memory
	rules  rules
	state  secretState
	now    time.Time
	random func() float64
	// o is the observation, without the Secret.
	o secretObservation
	// answer is the source's; nil issues a certificate for a day.
	answer func(secretDecision) (*certs.Bundle, error)
	asks   []secretDecision
	// removed are the sources that were cleaned up, and removeErr is the answer.
	removed   []policy.Source
	removeErr error
	once      events.Once
	recorded  []events.Event
	results   []publish.Result
	rejected  []certs.Reason
}

// newLife is a Secret that service account emissary claims, at noon. There is none yet.
func newLife(t *testing.T) *life {
	l := &life{t: t, ca: newAuthority(t), store: &memory{}, rules: testRules(), now: noon, random: middle}
	l.o = secretObservation{
		namespace: "edge", name: "istio-certs", claims: []claim{podClaim("front", "emissary", time.Hour)},
		roots: l.ca.roots(), mesh: defaultMesh(), interval: interval, leafSpread: minLeafSpread,
	}
	l.once = events.NewOnce(func(e events.Event) { l.recorded = append(l.recorded, e) })
	return l
}

// hold has the Secret hold a bundle that was published at a time.
func (l *life) hold(b *certs.Bundle, source policy.Source, at time.Time) {
	l.store.secret = l.ca.secretOf(l.t, b, source, at)
}

// holdGood has it hold a certificate for a day that was issued an hour ago, and was
// checked once.
func (l *life) holdGood(source policy.Source) {
	l.o.claims[0].options.Source = source
	issued := l.now.Add(-time.Hour)
	l.hold(l.ca.bundle(l.t, "emissary", issued, issued.Add(24*time.Hour)), source, issued)
	answer := l.answer
	l.answer = func(secretDecision) (*certs.Bundle, error) { return nil, nil }
	l.observe()
	l.answer, l.asks, l.recorded = answer, nil, nil
}

// observe remembers the Secret without a request to the source.
func (l *life) observe() {
	l.o.secret, _ = l.store.Get(l.t.Context(), "edge", "istio-certs")
	l.state = decideSecret(l.o, l.state, l.rules, l.now, l.random).state
}

// check checks the Secret once, as the controller does.
func (l *life) check() secretDecision {
	l.t.Helper()
	l.o.secret, _ = l.store.Get(l.t.Context(), "edge", "istio-certs")
	return takeSecretSteps(decideSecret(l.o, l.state, l.rules, l.now, l.random), secretSteps{
		now: func() time.Time { return l.now }, random: l.random, apply: l.apply,
		issue: func(d secretDecision) (*certs.Bundle, error) {
			l.asks = append(l.asks, d)
			if l.answer != nil {
				return l.answer(d)
			}
			return l.ca.bundle(l.t, d.request.ServiceAccount, l.now, l.now.Add(24*time.Hour)), nil
		},
		publish: func(d secretDecision) (publish.Outcome, error) {
			p := publish.Publisher{Secrets: l.store, Now: func() time.Time { return l.now }, RenewBy: d.renewBy}
			return p.Publish(l.t.Context(), d.target, d.bundle, d.rule)
		},
		remove: func(d secretDecision) error {
			l.removed = append(l.removed, d.formerSource)
			return l.removeErr
		},
	})
}

func (l *life) apply(d secretDecision) {
	l.state = d.state
	l.results = append(l.results, d.effects.results...)
	l.rejected = append(l.rejected, d.effects.rejected...)
	for _, change := range d.effects.events {
		if change.isResolved {
			l.once.Resolve(change.Regarding, change.Reason)
			continue
		}
		l.once.Record(change.Event)
	}
}

// live checks the Secret until a time, each time when the decision says so; failures
// are retried as the controller does. It returns the last decision.
func (l *life) live(until time.Time) (d secretDecision) {
	l.t.Helper()
	failures := 0
	for l.now.Before(until) {
		d = l.check()
		next := d.next
		if d.err == nil {
			failures = 0
		} else {
			next = l.now.Add(retryAfter(failures, l.o.interval/2, l.state.lifeLeft(l.now), l.random))
			failures++
		}
		require.True(l.t, next.After(l.now), "time goes on")
		l.now = next
	}
	return d
}

func (l *life) fail(text string) {
	l.answer = func(secretDecision) (*certs.Bundle, error) { return nil, errors.New(text) }
}

// reasons are those of the Events, and notes their texts.
func (l *life) reasons() (list []string) {
	for _, e := range l.recorded {
		list = append(list, e.Reason)
	}
	return list
}

// The source delivers nothing, and then a root is added to the mesh, and labels are
// removed: both are put right at the next check, by one write each, with the
// certificate that is there.
func TestRootsAndLabelsDoNotWaitForTheSource(t *testing.T) {
	for name, change := range map[string]func(*life){
		"if it fails": func(l *life) { l.fail("istiod is away") },
		"if it is pending": func(l *life) {
			l.answer = func(secretDecision) (*certs.Bundle, error) { return nil, certs.ErrPending }
		},
		"if it delivers another's certificate": func(l *life) {
			l.answer = func(secretDecision) (*certs.Bundle, error) {
				return nil, &certs.Rejection{Reason: certs.WrongIdentity, Detail: "it is another's"}
			}
		},
		"if it is not set up": func(l *life) {
			l.o.claims[0].options.Source = policy.CertManager
			delete(l.rules.sources, policy.CertManager)
		},
		"if it may not be mirrored": func(l *life) {
			l.o.claims[0].options.Source, l.o.claims[0].options.MirrorSecret = policy.Mirror, "theirs"
		},
		"if no publisher is there":      func(l *life) { l.o.claims[0].options.Source = policy.Agent; l.fail("the token is forbidden") },
		"if cert-manager has no issuer": func(l *life) { l.o.claims[0].options.Source = policy.CertManager; l.fail("no issuer") },
	} {
		for due, at := range map[string]time.Time{" and nothing is due": noon, " and it is due": noon.Add(16 * time.Hour)} {
			t.Run(name+due+", expect one write", func(t *testing.T) {
				l := newLife(t)
				l.holdGood(policy.IstioCA)
				serial := l.store.secret.Annotations[policy.SerialKey]
				l.now = at
				change(l)
				l.check()
				require.Zero(t, l.store.applies)
				l.o.roots = append(l.o.roots, newAuthority(t).Certificate)
				for range 20 {
					l.now = l.now.Add(time.Minute)
					l.check()
					assert.Equal(t, 1, l.store.applies, "at the first check, and never again")
				}
				roots, err := certs.ParseCertificates(l.store.secret.Data["ca.crt"])
				require.NoError(t, err)
				assert.Len(t, roots, 2)
				assert.Equal(t, serial, l.store.secret.Annotations[policy.SerialKey])
				assert.Equal(t, "istio-ca", l.store.secret.Annotations[policy.SourceKey], "the certificate's")

				delete(l.store.secret.Annotations, policy.NotAfterKey)
				l.check()
				assert.Equal(t, 2, l.store.applies)
				assert.NotEmpty(t, l.store.secret.Annotations[policy.NotAfterKey])
			})
		}
	}
}

// A failure that lasts is one Event, and so is the end of the certificate. Each comes
// again only after all was well in between. No note holds the time.
func TestOneEventPerChangeOfState(t *testing.T) {
	l := newLife(t)
	l.holdGood(policy.IstioCA)
	l.fail("istiod is away")
	l.now = noon.Add(9 * time.Hour)
	for range 10 {
		require.Error(t, l.check().err)
		l.now = l.now.Add(15 * time.Second)
	}
	assert.Equal(t, []string{EventFailed}, l.reasons())
	l.now = noon.Add(22*time.Hour + 58*time.Minute + 30*time.Second)
	for range 10 { // into and beyond the last minute
		require.Error(t, l.check().err)
		l.now = l.now.Add(15 * time.Second)
	}
	assert.Equal(t, []string{EventFailed, EventRejected}, l.reasons())
	assert.Equal(t, []certs.Reason{certs.Expired}, l.rejected)

	l.answer = nil
	require.NoError(t, l.check().err)
	assert.Equal(t, []string{EventFailed, EventRejected, EventIssued, EventPublished}, l.reasons())
	l.fail("istiod is away")
	l.now = l.now.Add(10 * time.Hour)
	require.Error(t, l.check().err)
	assert.Equal(t, EventFailed, l.recorded[4].Reason, "all was well in between")
	assert.Len(t, l.recorded, 5)
}

func TestErrorsThatTakeTurnsAreOneEventEach(t *testing.T) {
	l := newLife(t)
	l.holdGood(policy.IstioCA)
	l.o.interval = 10 * time.Minute
	l.now = noon.Add(9 * time.Hour)
	turn := 0
	l.answer = func(secretDecision) (*certs.Bundle, error) {
		turn++
		if turn%3 == 0 {
			return nil, &certs.Rejection{Reason: certs.Untrusted, Detail: "issuer unknown"}
		}
		return nil, fmt.Errorf("failure %d", turn%2)
	}
	l.live(noon.Add(12 * time.Hour))
	assert.ElementsMatch(t, []string{EventFailed, EventFailed, EventRejected}, l.reasons())
}

// Nobody writes the Secret of the publishers, and the controller cannot either.
func TestOneEventWhenNoPublisherWrites(t *testing.T) {
	l := newLife(t)
	l.holdGood(policy.Agent)
	l.fail("the token is forbidden")
	l.now = noon.Add(24 * time.Hour)
	for range 10 {
		l.check()
		l.now = l.now.Add(30 * time.Second)
	}
	assert.ElementsMatch(t, []string{EventRejected, EventPublisherSilent, EventFailed}, l.reasons())
	assert.Equal(t, []certs.Reason{certs.Expired}, l.rejected)
	for _, e := range l.recorded {
		assert.NotContains(t, e.Note, l.now.Format("2006-01-02T15:"))
	}
}

// The publishers are gone: the controller renews at two thirds of each life, and writes
// new roots at the next check.
func TestControllerRenewsWithoutAPublisher(t *testing.T) {
	l := newLife(t)
	l.holdGood(policy.Agent)
	l.o.interval = 10 * time.Minute
	l.live(noon.Add(14 * time.Hour))
	assert.Empty(t, l.asks, "the publishers have until two thirds of the life")
	l.o.roots = append(l.o.roots, newAuthority(t).Certificate)
	l.check()
	assert.Equal(t, 1, l.store.applies)
	assert.Equal(t, "agent", l.store.secret.Annotations[policy.SourceKey])
	l.live(noon.Add(15 * time.Hour))
	require.Len(t, l.asks, 1)
	assert.Equal(t, policy.IstioCA, l.asks[0].source)
	assert.Equal(t, "istio-ca", l.store.secret.Annotations[policy.SourceKey])
	assert.Equal(t, []string{EventRootChanged, EventPublished, EventPublisherSilent, EventIssued, EventPublished}, l.reasons())
	l.live(noon.Add(72 * time.Hour))
	assert.InDelta(t, 4, len(l.asks), 1)
	assert.NotContains(t, l.reasons()[5:], EventPublisherSilent, "it is said once")

	// A publisher is back, and goes again.
	l.hold(l.ca.bundle(t, "emissary", l.now, l.now.Add(24*time.Hour)), policy.Agent, l.now)
	l.live(l.now.Add(time.Hour))
	before := len(l.recorded)
	l.live(l.now.Add(16 * time.Hour))
	assert.Equal(t, EventPublisherSilent, l.recorded[before].Reason)
}

// Another service account's publisher changes nothing for the one that holds the
// Secret.
func TestLosingClaimDoesNotChooseTheSource(t *testing.T) {
	l := newLife(t)
	l.holdGood(policy.IstioCA)
	l.o.interval = 10 * time.Minute
	other := podClaim("back", "other", 0)
	other.options.Source = policy.Agent
	l.o.claims = append(l.o.claims, other)
	l.live(noon.Add(30 * time.Hour))
	assert.InDelta(t, 4, len(l.asks), 1, "renewed at a third of each life")
	assert.Equal(t, publish.Good, l.state.state)
	assert.Equal(t, "emissary", l.state.account)
}

// A pod names a revision of Istio that is gone.
func TestClaimThatCannotBeResolvedIsLeftOut(t *testing.T) {
	l := newLife(t)
	l.holdGood(policy.IstioCA)
	l.o.interval = 10 * time.Minute
	old := podClaim("old", "former", 100*time.Hour)
	old.options.Revision = "1-20"
	l.o.claims = append([]claim{old}, l.o.claims...)
	l.o.mesh["1-20"] = meshSettings{err: errors.New(`no revision "1-20" of Istio`)}
	l.live(noon.Add(30 * time.Hour))
	assert.InDelta(t, 4, len(l.asks), 1, "renewed at a third of each life")
	assert.Equal(t, EventClaimIgnored, l.recorded[0].Reason)
	assert.Equal(t, "old", l.recorded[0].Regarding.Name)
	assert.Equal(t, `secret istio-certs does not take service account former into account: no revision "1-20" of Istio`, l.recorded[0].Note)
	said := func() (n int) {
		for _, e := range l.recorded {
			if e.Reason == EventClaimIgnored {
				n++
			}
		}
		return n
	}
	assert.Equal(t, 1, said())
	unknown := l.o.mesh["1-20"]
	l.o.mesh["1-20"] = l.o.mesh[""]
	l.check()
	l.o.mesh["1-20"] = unknown
	l.check()
	assert.Equal(t, 2, said(), "all was well in between")
}

// All pods name a revision of Istio that is gone: the Event on a pod says so too.
func TestClaimsOfWhichNoneCanBeResolved(t *testing.T) {
	l := newLife(t)
	l.o.mesh[""] = meshSettings{err: errors.New("no such revision of Istio")}
	l.check()
	l.check()
	assert.Equal(t, []string{EventFailed, EventClaimIgnored}, l.reasons())
	assert.Equal(t, "front", l.recorded[1].Regarding.Name)
	assert.True(t, l.state.hasIgnored)
	l.o.rootsErr = errors.New("not read yet")
	l.check()
	l.o.rootsErr = nil
	l.check()
	assert.Equal(t, 1, countOf(l.reasons(), EventClaimIgnored), "without roots nothing is known of the claims")
	l.o.mesh = defaultMesh()
	l.check()
	assert.False(t, l.state.hasIgnored)
	assert.True(t, l.state.isKnown())
}

func countOf(list []string, reason string) (n int) {
	for _, other := range list {
		if other == reason {
			n++
		}
	}
	return n
}

// The mesh moves to another trust domain.
func TestMigrationOfTheTrustDomain(t *testing.T) {
	l := newLife(t)
	l.holdGood(policy.IstioCA)
	other := podClaim("back", "a-second", 2*time.Hour)
	l.o.claims = append([]claim{other}, l.o.claims...)
	l.o.mesh = map[string]meshSettings{"": {Mesh: patches.Mesh{TrustDomain: "new.example"}.WithDefaults()}}
	l.answer = func(d secretDecision) (*certs.Bundle, error) {
		assert.Equal(t, "spiffe://new.example/ns/edge/sa/emissary", d.request.Want.ID.String(), "the same owner")
		leaf := l.ca.SPIFFELeaf(t, d.request.Want.ID.String(), certtestDay(l.now))
		return certs.New(certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM}, certs.Want{ID: d.request.Want.ID, Roots: l.o.roots, Now: l.now})
	}
	l.now = l.now.Add(time.Minute)
	require.NoError(t, l.check().err)
	assert.Equal(t, 1, l.store.applies, "at the next check")
	assert.Equal(t, "spiffe://new.example/ns/edge/sa/emissary", l.store.secret.Annotations[policy.SPIFFEIDKey])
	assert.Equal(t, publish.Good, l.state.state)
}

// The mesh moves, its authority is away, and a root is added: it is written with the
// certificate of the former trust domain. The publishers of an edge do not keep the
// controller from replacing that.
func TestMigrationWhileTheSourceFails(t *testing.T) {
	for _, source := range []policy.Source{policy.IstioCA, policy.Agent} {
		t.Run(string(source), func(t *testing.T) {
			l := newLife(t)
			l.holdGood(source)
			l.o.mesh = map[string]meshSettings{"": {Mesh: patches.Mesh{TrustDomain: "new.example"}.WithDefaults()}}
			l.fail("istiod is away")
			l.o.roots = append(l.o.roots, newAuthority(t).Certificate)
			for range 20 {
				l.now = l.now.Add(time.Minute)
				require.ErrorContains(t, l.check().err, "istiod is away")
				assert.Equal(t, 1, l.store.applies)
			}
			roots, err := certs.ParseCertificates(l.store.secret.Data["ca.crt"])
			require.NoError(t, err)
			assert.Len(t, roots, 2)
			assert.Equal(t, idOf("emissary").String(), l.store.secret.Annotations[policy.SPIFFEIDKey])
			assert.ElementsMatch(t, []string{EventRejected, EventFailed, EventPublished}, l.reasons())

			l.answer = func(d secretDecision) (*certs.Bundle, error) {
				leaf := l.ca.SPIFFELeaf(t, d.request.Want.ID.String(), certtestDay(l.now))
				return certs.New(certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM}, certs.Want{ID: d.request.Want.ID, Roots: l.o.roots, Now: l.now})
			}
			require.NoError(t, l.check().err)
			assert.Equal(t, "spiffe://new.example/ns/edge/sa/emissary", l.store.secret.Annotations[policy.SPIFFEIDKey])
		})
	}
}

// cert-manager does not issue for an hour.
func TestPendingSourceIsAskedWithGrowingPauses(t *testing.T) {
	l := newLife(t)
	l.o.claims[0].options.Source = policy.CertManager
	l.random = sequence(0.9, 0.1, 0.8, 0.3)
	l.answer = func(secretDecision) (*certs.Bundle, error) { return nil, fmt.Errorf("%w: no issuer", certs.ErrPending) }
	l.live(noon.Add(time.Hour))
	assert.LessOrEqual(t, len(l.asks), 70)
	assert.Greater(t, len(l.asks), 60)
	assert.Equal(t, []string{EventFailed}, l.reasons())
	pending := l.state
	l.answer = nil
	d := l.live(l.now.Add(maxPendingRetry))
	require.NoError(t, d.err)
	assert.Equal(t, publish.Good, l.state.state, "noticed within the present wait")
	assert.Zero(t, l.state.asks)

	// Another source starts from the beginning.
	l.state, l.store.secret = pending, nil
	l.o.claims[0].options.Source = policy.Mirror
	l.answer = func(secretDecision) (*certs.Bundle, error) { return nil, certs.ErrPending }
	d = l.check()
	assert.Equal(t, l.now, l.state.pendingSince)
	assert.InDelta(t, pendingRetry, d.next.Sub(l.now), float64(pendingRetry/20))
}

// The authority answers, but thousands of other requests come first.
func TestBusySourceIsAskedSteadily(t *testing.T) {
	l := newLife(t)
	l.random = sequence(0.9, 0.1, 0.8, 0.3)
	l.answer = func(secretDecision) (*certs.Bundle, error) { return nil, fmt.Errorf("%w: 4 requests", certs.ErrBusy) }
	d := l.live(noon.Add(10 * time.Minute))
	require.NoError(t, d.err)
	assert.Empty(t, l.reasons(), "nothing is wrong")
	assert.LessOrEqual(t, d.next.Sub(l.now), pendingRetry, "the pauses do not grow")
	assert.Greater(t, len(l.asks), 250)
	l.answer = nil
	require.NoError(t, l.live(l.now.Add(2*pendingRetry)).err)
	assert.Equal(t, publish.Good, l.state.state)
}

// A good Secret whose source is pending is asked for more often near its end.
func TestPendingSourceNearTheEndOfTheCertificate(t *testing.T) {
	l := newLife(t)
	l.holdGood(policy.CertManager)
	l.answer = func(secretDecision) (*certs.Bundle, error) { return nil, certs.ErrPending }
	l.now, l.state.asks = noon.Add(22*time.Hour+59*time.Minute-30*time.Second), 20
	d := l.check()
	assert.Less(t, d.next.Sub(l.now), 31*time.Second)
	assert.False(t, l.state.askAfter.After(l.now.Add(30*time.Second)), "a third of ninety seconds")
}

// A Secret whose source has been pending for long is deleted, and made good by somebody
// else: each starts from the beginning.
func TestWaitForAPendingSourceEndsWhenTheSecretChanges(t *testing.T) {
	l := newLife(t)
	l.holdGood(policy.IstioCA)
	good := l.store.secret
	l.answer = func(secretDecision) (*certs.Bundle, error) { return nil, certs.ErrPending }
	l.now, l.state.asks = l.now.Add(17*time.Hour), 20
	l.check()
	require.Len(t, l.asks, 1)
	require.Greater(t, l.state.askAfter.Sub(l.now), 50*time.Second)

	l.store.secret = nil
	l.now = l.now.Add(time.Second)
	l.check()
	assert.Len(t, l.asks, 2, "the repair does not wait")
	assert.Equal(t, l.now, l.state.pendingSince)
	l.now = l.now.Add(time.Second)
	l.check()
	assert.Len(t, l.asks, 2, "a Secret that stays absent waits")

	l.store.secret, l.state.asks = good, 20
	l.now = l.now.Add(time.Second)
	l.check()
	assert.Equal(t, 1, l.state.asks)
	assert.Equal(t, l.now, l.state.pendingSince)
}

// An edge that notices new roots only with a new certificate gets one, at a time that is
// spread.
func TestChangeOfRootsIsFollowedByANewLeaf(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*claim)
		isDue  bool
	}{
		"if it reads the Secret by a TLSContext of its own, expect a new leaf": {func(c *claim) { c.options.Delivery, c.secret.IgnoresRoots = policy.DeliverySecret, true }, true},
		"if it notices new roots alone, expect none":                           {func(c *claim) { c.options.Delivery, c.secret.IgnoresRoots = policy.DeliverySecret, false }, false},
		"if the controller keeps its TLSContext, expect none": {func(c *claim) {
			c.options.Delivery, c.secret.IgnoresRoots, c.options.TLSContext = policy.DeliverySecret, true, "istio-upstream"
		}, false},
		"if it reads files, expect none": {func(c *claim) { c.secret.IgnoresRoots = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t)
			l.holdGood(policy.IstioCA)
			test.change(&l.o.claims[0])
			var times []float64
			for i := range 20 {
				s, secret := l.state, l.store.secret.DeepCopy()
				l.random = sequence(0.025 + 0.05*float64(i))
				roots := l.o.roots
				l.o.roots = append(l.o.roots[:1:1], newAuthority(t).Certificate)
				require.NoError(t, l.check().err)
				require.Equal(t, publish.CauseRoots, causeOf(t, l))
				if i%2 == 1 { // a new leader
					l.state = secretState{}
				}
				asks := len(l.asks)
				l.live(noon.Add(minLeafSpread + 30*time.Second))
				newAsks := len(l.asks) - asks
				if test.isDue {
					require.Equal(t, 1, newAsks)
					times = append(times, l.asks[asks].request.Want.Now.Sub(noon).Minutes())
				} else {
					assert.Zero(t, newAsks)
				}
				l.now, l.state, l.store.secret, l.o.roots, l.recorded = noon, s, secret, roots, nil
				l.once.Reset()
			}
			for i, at := range times {
				assert.InDelta(t, 0.25+0.5*float64(i), at, 0.51, "spread evenly")
			}
		})
	}
}

// The leaf lives a day, and its intermediate two hours: the certificate is renewed by the
// end that comes first, and the Events name it.
func TestRenewalFollowsTheFirstEndOfTheChain(t *testing.T) {
	l := newLife(t)
	l.o.interval, l.o.claims[0].options.CertTTL = 10*time.Minute, 24*time.Hour
	intermediate := l.ca.Intermediate(t, certtest.Validity(noon.Add(-time.Hour), noon.Add(2*time.Hour)))
	l.answer = func(d secretDecision) (*certs.Bundle, error) {
		leaf := intermediate.SPIFFELeaf(t, d.request.Want.ID.String(), certtestDay(l.now))
		return certs.New(certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM}, certs.Want{ID: d.request.Want.ID, Roots: l.o.roots, Now: l.now})
	}
	l.live(noon.Add(115 * time.Minute))
	assert.InDelta(t, 7, len(l.asks), 3, "a third of what is left each time")
	assert.WithinRange(t, l.asks[1].request.Want.Now, noon.Add(40*time.Minute), noon.Add(50*time.Minute))
	assert.Equal(t, noon.Add(2*time.Hour), l.state.notAfter)
	var lifetimes []string
	for _, e := range l.recorded {
		if e.Reason == EventLifetimeChanged {
			lifetimes = append(lifetimes, e.Note)
			continue
		}
		assert.Contains(t, e.Note, `until 2026-03-01T14:00:00Z (the end of intermediate "CN=test intermediate"`)
	}
	require.Len(t, lifetimes, 1, "once, although the life is another one each time")
	assert.Contains(t, lifetimes[0], `asks for certificates that live 24h0m0s, and they end with intermediate "CN=test intermediate"`)

	// The mesh has a new intermediate in time.
	intermediate = l.ca.Intermediate(t, certtest.Validity(noon.Add(-time.Hour), noon.Add(100*time.Hour)))
	l.live(noon.Add(3 * time.Hour))
	assert.Equal(t, publish.Good, l.state.state)
	assert.Greater(t, l.state.lifeLeft(l.now), 20*time.Hour)
	assert.NotContains(t, l.reasons(), EventRejected)
}

// causeOf is the cause of the last Published Event.
func causeOf(t *testing.T, l *life) publish.Cause {
	t.Helper()
	note := l.recorded[len(l.recorded)-1].Note
	var cause string
	_, err := fmt.Sscanf(note[len(note)-len("(roots)"):], "(%5s)", &cause)
	require.NoError(t, err, note)
	return publish.Cause(cause)
}

// What an annotation asks for and cannot be had is said once, with both lifetimes.
func TestLifetimeThatCannotBeHadIsReported(t *testing.T) {
	for name, test := range map[string]struct {
		source   policy.Source
		ttl      time.Duration
		life     time.Duration
		expected []string
	}{
		"if cert-manager issues an hour at least, expect an Event": {policy.CertManager, 30 * time.Minute, time.Hour, []string{
			"istio-certs: isthmus.dev/cert-ttl asks for certificates that live 30m0s, and they live 1h0m0s: cert-manager issues certificates for an hour or more"}},
		"if istiod issues less, expect an Event": {policy.IstioCA, 48 * time.Hour, 24 * time.Hour, []string{
			"istio-certs: isthmus.dev/cert-ttl asks for certificates that live 48h0m0s, and they live 24h0m0s: istiod refuses the lifetime; its maximum is MAX_WORKLOAD_CERT_TTL"}},
		"if it is given, expect none":      {policy.IstioCA, 24 * time.Hour, 24 * time.Hour, nil},
		"if nothing is asked, expect none": {policy.IstioCA, 0, 12 * time.Hour, nil},
		"if cert-manager can, expect none": {policy.CertManager, time.Hour, time.Hour, nil},
		"if nobody asked it, expect none":  {policy.CertManager, 0, time.Hour, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t)
			l.o.interval, l.o.claims[0].options.Source, l.o.claims[0].options.CertTTL = 10*time.Minute, test.source, test.ttl
			l.answer = func(secretDecision) (*certs.Bundle, error) {
				return l.ca.bundle(t, "emissary", l.now, l.now.Add(test.life)), nil
			}
			l.live(noon.Add(30 * time.Hour))
			var notes []string
			for _, e := range l.recorded {
				if e.Reason == EventLifetimeChanged {
					notes = append(notes, e.Note)
				}
			}
			assert.Equal(t, test.expected, notes)
		})
	}
}
