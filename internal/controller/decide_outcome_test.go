package controller

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestDecideOutcome(t *testing.T) {
	const secret = "Secret/istio-certs"
	away := errors.New("write secret edge/istio-certs: connection refused")
	published := []string{
		"resolve RootChanged " + secret, "Normal Published " + secret + ": spiffe://cluster.local/ns/edge/sa/emissary, serial ",
		"resolve Failed " + secret, "resolve Rejected " + secret,
	}
	for name, test := range map[string]struct {
		result publish.Result
		err    error
		// isBad is true when the Secret holds no valid bundle after it was written.
		isBad bool
		step  secretStep
		// next is the time until the next check: with stepDone.
		next   time.Duration
		events []string
		// rejected are the reasons that are counted.
		rejected []certs.Reason
		// isKept is true if the bundle is published again at the next check.
		isKept  bool
		failure string
	}{
		"if it was written, expect an Event": {result: publish.Published, step: stepDone, next: interval, events: published},
		"if it was as good before, expect no Event": {
			result: publish.Unchanged, step: stepDone, next: interval, events: []string{"resolve Failed " + secret, "resolve Rejected " + secret},
		},
		"if it could not be written, expect the bundle to be kept": {
			result: publish.Failed, err: away, step: stepDone, next: interval, isKept: true, failure: "connection refused", events: []string{"Warning Failed " + secret + ": write secret"},
		},
		"if it became someone else's, expect the bundle to be dropped": {
			result: publish.RefusedForeign, err: errors.New("is not ours"), step: stepDone, next: interval, failure: "is not ours", events: []string{"Warning Conflict " + secret + ": is not ours"},
		},
		"if it got another identity, expect the bundle to be dropped": {
			result: publish.RefusedIdentity, err: errors.New("holds another"), step: stepDone, next: interval, failure: "holds another", events: []string{"Warning Conflict " + secret + ": holds another"},
		},
		"if it became immutable, expect the bundle to be dropped": {
			result: publish.RefusedImmutable, err: errors.New("is immutable"), step: stepDone, next: interval, failure: "is immutable", events: []string{"Warning Conflict " + secret + ": is immutable"},
		},
		"if it was written and is bad, expect an Event, a count, and the bundle to be kept": {
			result: publish.Published, isBad: true, step: stepDone, next: interval, rejected: []certs.Reason{certs.Malformed}, isKept: true,
			failure: "secret edge/istio-certs was written, and somebody changed it meanwhile: malformed: ",
			events:  []string{"resolve RootChanged " + secret, "Warning Rejected " + secret + ": the content of the Secret: malformed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newSecretCase(t)
			former := c.ca.bundle(t, "emissary", noon.Add(-2*time.Hour), noon.Add(2*time.Hour))
			c.s = c.s.keepPending(former, noon.Add(-2*time.Hour))
			require.Equal(t, noon, c.s.pendingUntil)
			d := decideIssuance(issuing(t, c), c.bundle, nil, noon, middle)
			require.Equal(t, stepPublish, d.step)
			outcome := publish.Outcome{Result: test.result}
			if test.err == nil {
				secret := c.ca.secretOf(t, c.bundle, policy.IstioCA, noon)
				if test.isBad {
					secret.Data["tls.key"] = nil
				}
				outcome.Observation, outcome.Cause = publish.Inspect(secret, d.holder.target, noon), publish.CauseAbsent
			}
			d = decideOutcome(d, outcome, test.err, noon, middle)
			assert.Equal(t, test.step, d.step)
			assertEvents(t, test.events, d)
			assert.Equal(t, []publish.Result{test.result}, d.effects.results)
			assert.Equal(t, test.result == publish.Published, d.effects.isPublished)
			assert.Equal(t, test.rejected, d.effects.rejected)
			if test.step == stepDone {
				assert.Equal(t, test.next, d.next.Sub(noon))
			}
			if test.isKept {
				assert.Same(t, c.bundle, d.state.pending)
				assert.Equal(t, noon.Add(c.bundle.NotAfter().Sub(noon)/2), d.state.pendingUntil)
			} else {
				assert.Nil(t, d.state.pending)
			}
			if test.failure != "" {
				assert.ErrorContains(t, d.err, test.failure)
				return
			}
			require.NoError(t, d.err)
			if test.result == publish.Published {
				assert.Equal(t, publish.Good, d.state.state)
				assert.True(t, d.state.due.After(noon))
			}
		})
	}
}

// A removal that fails is tried again with growing pauses, and does not keep the Secret
// from its checks.
func TestRemovalThatFailsIsTriedAgain(t *testing.T) {
	l := newLife(t)
	l.hold(l.ca.bundle(t, "emissary", noon.Add(-23*time.Hour), noon.Add(time.Hour)), policy.CertManager, noon.Add(-23*time.Hour))
	l.removeErr = errors.New("certificates.cert-manager.io is forbidden")
	var removals []time.Duration
	for l.now.Before(noon.Add(3 * time.Hour)) {
		before := len(l.removed)
		d := l.check()
		require.NoError(t, d.err)
		if len(l.removed) > before {
			removals = append(removals, l.now.Sub(noon))
		}
		l.now = d.next
	}
	assert.Equal(t, policy.CertManager, l.removed[0])
	assert.InDelta(t, 9, len(removals), 1, "%v", removals)
	assert.Equal(t, 1, l.store.applies)
	assert.Equal(t, []string{EventIssued, EventPublished, EventLeftBehind}, l.reasons())
	assert.Equal(t, "what source cert-manager created for the Secret cannot be removed and stays: certificates.cert-manager.io is forbidden", l.recorded[2].Note)

	l.removeErr = nil
	l.now = l.now.Add(time.Hour)
	l.check()
	tries := len(l.removed)
	l.now = l.now.Add(time.Hour)
	l.check()
	assert.Len(t, l.removed, tries, "nothing is left")
}

// The namespace chose another source, or the source lost its issuer: what it created is
// removed, or an Event says what stays.
func TestObjectsOfASourceThatIsNoLongerUsed(t *testing.T) {
	gone := fmt.Errorf("no issuer: %w", certs.ErrNotConfigured)
	for name, test := range map[string]struct {
		change    func(*life)
		removeErr error
		// removals are the attempts in an hour.
		removals int
		events   []string
	}{
		"if the namespace chose another source, expect them to be removed at once": {
			change: func(l *life) { l.o.claims[0].options.Source = policy.IstioCA }, removals: 1,
		},
		"if that fails, expect an Event and more attempts": {
			change: func(l *life) { l.o.claims[0].options.Source = policy.IstioCA }, removeErr: errors.New("forbidden"), removals: 7, events: []string{EventLeftBehind},
		},
		"if the source has no issuer any more, expect an Event for either": {
			change: func(l *life) {
				l.answer = func(secretDecision) (*certs.Bundle, error) { return nil, gone }
			}, removeErr: gone, removals: 7, events: []string{EventFailed, EventLeftBehind},
		},
		"if the source fails otherwise, expect them to stay": {
			change: func(l *life) { l.fail("timeout") }, events: []string{EventFailed},
		},
		"if nothing changed, expect them to stay": {change: func(*life) {}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t)
			l.holdGood(policy.CertManager)
			bundle := l.ca.bundle(t, "emissary", noon.Add(-time.Hour), noon.Add(23*time.Hour))
			l.answer = func(secretDecision) (*certs.Bundle, error) { return bundle, nil }
			l.check()
			writes := l.store.applies
			l.removeErr, l.recorded = test.removeErr, nil
			test.change(l)
			l.live(noon.Add(time.Hour))
			assert.InDelta(t, test.removals, len(l.removed), 1)
			assert.Equal(t, test.removals == 0, len(l.removed) == 0)
			assert.ElementsMatch(t, test.events, l.reasons())
			assert.Equal(t, writes, l.store.applies, "the certificate stays until it is due")
		})
	}
}

// The namespace chose cert-manager, which never issued, and goes back to istio-ca: no
// Secret says that there is a Certificate.
func TestObjectsOfASourceThatNeverIssued(t *testing.T) {
	l := newLife(t)
	l.holdGood(policy.IstioCA)
	bundle := l.ca.bundle(t, "emissary", noon.Add(-time.Hour), noon.Add(23*time.Hour))
	change := func(source policy.Source) {
		l.o.claims[0].options.Source = source
		l.answer = func(d secretDecision) (*certs.Bundle, error) {
			if d.source == policy.CertManager {
				return nil, certs.ErrPending
			}
			return bundle, nil
		}
		l.live(l.now.Add(10 * time.Minute))
	}
	for i := range 2 {
		change(policy.CertManager)
		assert.Len(t, l.removed, i, "it is used")
		change(policy.IstioCA)
		assert.Len(t, l.removed, i+1)
	}
	assert.Equal(t, []policy.Source{policy.CertManager, policy.CertManager}, l.removed)

	// A removal that failed is not made up for once the source is used again.
	change(policy.CertManager)
	l.removeErr = errors.New("forbidden")
	change(policy.IstioCA)
	tries := len(l.removed)
	assert.Greater(t, tries, 2)
	l.removeErr = nil
	change(policy.CertManager)
	assert.Len(t, l.removed, tries)
	change(policy.IstioCA)
	assert.Len(t, l.removed, tries+1)
}
