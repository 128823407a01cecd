package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func testRules() rules {
	return rules{
		sources:       map[policy.Source]bool{policy.IstioCA: true, policy.Mirror: true, policy.CertManager: true},
		mirrorSecrets: []string{"istio.emissary"}, names: policy.Names{Secrets: []string{"istio-certs"}, TLSContexts: []string{"istio-upstream"}},
	}
}

// secretCase is a Secret of service account emissary that was issued at eleven for
// 24 hours and published at once. It is due at 19:00, and with jitter at 19:48.
type secretCase struct {
	ca     authority
	bundle *certs.Bundle
	o      secretObservation
	s      secretState
	rules  rules
}

func newSecretCase(t testing.TB) *secretCase {
	t.Helper()
	c := &secretCase{ca: newAuthority(t), rules: testRules()}
	issued := noon.Add(-time.Hour)
	c.bundle = c.ca.bundle(t, "emissary", issued, issued.Add(24*time.Hour))
	c.o = secretObservation{
		namespace: "edge", name: "istio-certs", secret: c.ca.secretOf(t, c.bundle, policy.IstioCA, issued),
		claims: []claim{podClaim("front", "emissary", time.Hour)}, roots: c.ca.roots(), mesh: defaultMesh(), interval: interval,
	}
	return c
}

// remembered has the Secret checked once before.
func (c *secretCase) remembered() {
	c.s = decideSecret(c.o, c.s, c.rules, noon, middle).state
}

func (c *secretCase) setSource(source policy.Source) { c.o.claims[0].options.Source = source }

func TestDecideSecret(t *testing.T) {
	const secret = "Secret/istio-certs"
	writable := []string{"resolve Conflict " + secret}
	good := []string{"resolve Conflict " + secret, "resolve Failed " + secret, "resolve Rejected " + secret}
	for name, test := range map[string]struct {
		change func(*testing.T, *secretCase)
		at     time.Duration
		step   secretStep
		// next is the time until the next check: with stepDone.
		next time.Duration
		// events are the Events, each a prefix of its description.
		events   []string
		results  []publish.Result
		rejected []certs.Reason
		err      string
	}{
		"if it cannot be read, expect a failure that is retried": {
			change: func(_ *testing.T, c *secretCase) { c.o.secret, c.o.readErr = nil, errors.New("timeout") },
			step:   stepDone, results: []publish.Result{publish.Failed}, err: "read secret edge/istio-certs: timeout",
		},
		"if the roots are unknown, expect an Event and the regular check": {
			change: func(_ *testing.T, c *secretCase) { c.o.roots, c.o.rootsErr = nil, errors.New("no ConfigMap") },
			step:   stepDone, next: interval, events: []string{"Warning Failed " + secret + ": roots of the mesh: no ConfigMap"},
		},
		"if the mesh's settings are unknown, expect an Event on Secret and pod and the regular check": {
			change: func(_ *testing.T, c *secretCase) {
				c.o.mesh = map[string]meshSettings{"": {err: errors.New("no default revision")}}
			},
			step: stepDone, next: interval, events: []string{"Warning Failed " + secret + ": no default revision",
				"Warning ClaimIgnored Pod/front: secret istio-certs does not take service account emissary into account: no default revision"},
		},
		"if the identity is invalid, expect an Event on Secret and pod and the regular check": {
			change: func(_ *testing.T, c *secretCase) {
				c.o.mesh = map[string]meshSettings{"": {}}
			},
			step: stepDone, next: interval, events: []string{"Warning Failed " + secret + `: trust domain ""`, "Warning ClaimIgnored Pod/front: "},
		},
		"if it is absent, expect the source to be asked": {
			change: func(_ *testing.T, c *secretCase) { c.o.secret = nil },
			step:   stepIssue, events: []string{"resolve Conflict " + secret},
		},
		"if it is good, expect the regular check": {step: stepDone, next: interval, events: good},
		"if it is good and due before the regular check, expect the check then": {
			at: 7*time.Hour + 48*time.Minute - 10*time.Second, step: stepDone, next: 10 * time.Second, events: good,
		},
		"if it is past its renewal point and not due, expect the regular check": {
			at: 7*time.Hour + 30*time.Minute, step: stepDone, next: interval, events: good,
		},
		"if it is due, expect the source to be asked": {at: 7*time.Hour + 48*time.Minute, step: stepIssue, events: writable},
		"if its labels were changed, expect it to be published without a new bundle": {
			change: func(_ *testing.T, c *secretCase) { delete(c.o.secret.Labels, policy.ManagedByLabel); adopt(c) },
			step:   stepPublish, events: writable,
		},
		"if the roots changed, expect it to be published without a new bundle": {
			change: func(t *testing.T, c *secretCase) { c.o.roots = append(c.o.roots, newAuthority(t).Certificate) },
			step:   stepPublish, events: []string{"Normal RootChanged " + secret + ": the mesh's roots changed; the Secret is updated", "resolve Conflict " + secret},
		},
		"if the mesh no longer trusts it, expect the source to be asked": {
			change: func(t *testing.T, c *secretCase) { c.o.roots = newAuthority(t).roots() },
			step:   stepIssue, rejected: []certs.Reason{certs.Untrusted},
			events: []string{"Warning Rejected " + secret + ": the content of the Secret: untrusted: ", "resolve Conflict " + secret},
		},
		"if it is bad, expect the source to be asked": {
			change: func(_ *testing.T, c *secretCase) { c.o.secret.Data["tls.key"] = nil },
			step:   stepIssue, rejected: []certs.Reason{certs.Malformed},
			events: []string{"Warning Rejected " + secret + ": the content of the Secret: malformed: private key", "resolve Conflict " + secret},
		},
		"if it is bad in the same way as before, expect no second count": {
			change: func(_ *testing.T, c *secretCase) {
				c.o.secret.Data["tls.key"] = nil
				c.remembered()
			},
			step:   stepIssue,
			events: []string{"Warning Rejected " + secret, "resolve Conflict " + secret},
		},
		"if it is bad in another way than before, expect another count": {
			change: func(t *testing.T, c *secretCase) {
				key := c.o.secret.Data["tls.key"]
				c.o.secret.Data["tls.key"] = nil
				c.remembered()
				c.o.secret.Data["tls.key"] = key
				c.o.roots = newAuthority(t).roots()
			},
			step: stepIssue, rejected: []certs.Reason{certs.Untrusted},
			events: []string{"Warning Rejected " + secret, "resolve Conflict " + secret},
		},
		"if it expired, expect the source to be asked": {
			at: 24 * time.Hour, step: stepIssue, rejected: []certs.Reason{certs.Expired},
			events: []string{"Warning Rejected " + secret + ": the content of the Secret: expired: ", "resolve Conflict " + secret},
		},
		"if it is someone else's, expect a conflict": {
			change: func(_ *testing.T, c *secretCase) { c.o.secret.Labels = nil },
			step:   stepDone, next: interval, results: []publish.Result{publish.RefusedForeign},
			events: []string{"Warning Conflict " + secret + ": secret edge/istio-certs "},
		},
		"if it is immutable, expect a conflict": {
			change: func(_ *testing.T, c *secretCase) { c.o.secret.Immutable = ptr.To(true) },
			step:   stepDone, next: interval, results: []publish.Result{publish.RefusedImmutable},
			events: []string{"Warning Conflict " + secret + ": secret edge/istio-certs is immutable"},
		},
		"if it holds another identity, expect a conflict": {
			change: func(_ *testing.T, c *secretCase) { c.o.claims[0].serviceAccount = "other" },
			step:   stepDone, next: interval, results: []publish.Result{publish.RefusedIdentity},
			events: []string{"Warning Conflict " + secret + ": secret edge/istio-certs holds a certificate of spiffe://cluster.local/ns/edge/sa/emissary"},
		},
		"if it holds another identity that expired, expect the source to be asked": {
			change: func(_ *testing.T, c *secretCase) { c.o.claims[0].serviceAccount = "other" },
			at:     24 * time.Hour, step: stepIssue, rejected: []certs.Reason{certs.WrongIdentity},
			events: []string{"Warning Rejected " + secret, "resolve Conflict " + secret},
		},
		"if two service accounts claim it, expect the one that it holds": {
			change: func(_ *testing.T, c *secretCase) {
				c.o.claims = []claim{podClaim("back", "a-second", 2*time.Hour), c.o.claims[0], podClaim("front-2", "emissary", 0), podClaim("back-2", "a-second", 0)}
			},
			step: stepDone, next: interval, results: []publish.Result{publish.RefusedIdentity, publish.RefusedIdentity},
			events: append([]string{
				"Warning Conflict Pod/back: secret istio-certs serves service account emissary, so service account a-second has no Secret",
				"Warning Conflict Pod/back-2: ",
			}, good...),
		},
		"if a namespace's annotation loses it, expect no Event about a pod": {
			change: func(_ *testing.T, c *secretCase) {
				c.o.claims = append([]claim{{serviceAccount: "a-second", options: c.o.claims[0].options}}, c.o.claims...)
			},
			step: stepDone, next: interval, events: good,
		},
		"if the pod publishes it, expect the regular check": {
			change: func(_ *testing.T, c *secretCase) { c.setSource(policy.Agent); c.o.secret = nil },
			step:   stepDone, next: interval, events: []string{"resolve Conflict " + secret},
		},
		"if one of the pods publishes it, expect the regular check": {
			change: func(_ *testing.T, c *secretCase) {
				c.o.claims = append(c.o.claims, podClaim("front-2", "emissary", 0))
				c.o.claims[1].options.Source = policy.Agent
				c.o.secret = nil
			},
			step: stepDone, next: interval, events: writable,
		},
		"if its source is not set up, expect a failure that is retried": {
			change: func(_ *testing.T, c *secretCase) { delete(c.rules.sources, policy.IstioCA); c.o.secret = nil },
			step:   stepDone, next: interval, events: []string{"resolve Conflict " + secret, "Warning Failed " + secret + ": source istio-ca is not set up in this installation"},
			err: "certificate for secret edge/istio-certs: source istio-ca is not set up",
		},
		"if the other Secret may not be mirrored, expect a failure that is retried": {
			change: func(_ *testing.T, c *secretCase) {
				c.setSource(policy.Mirror)
				c.o.claims[0].options.MirrorSecret, c.o.secret = "theirs", nil
			},
			step: stepDone, next: interval,
			events: []string{"resolve Conflict " + secret, "Warning Failed " + secret + ": secret theirs may not be mirrored; add it to the chart's value controller.mirrorSecretNames (istio.emissary)"},
			err:    "certificate for secret edge/istio-certs: secret theirs may not be mirrored",
		},
		"if another Secret is mirrored, expect it to be asked for at every check": {
			change: func(_ *testing.T, c *secretCase) { c.setSource(policy.Mirror) },
			step:   stepIssue, events: writable,
		},
		"if cert-manager issues it, expect it to be asked at every check": {
			change: func(_ *testing.T, c *secretCase) { c.setSource(policy.CertManager) },
			step:   stepIssue, events: writable,
		},
		"if a bundle is pending, expect it to be published": {
			change: func(_ *testing.T, c *secretCase) {
				c.o.secret = nil
				c.s.pending, c.s.pendingUntil = c.bundle, noon.Add(time.Second)
			},
			step: stepPublish, events: []string{"resolve Conflict " + secret},
		},
		"if it is due and a bundle is pending, expect that to be published": {
			change: func(t *testing.T, c *secretCase) {
				c.s.pending, c.s.pendingUntil = c.ca.bundle(t, "emissary", noon, noon.Add(24*time.Hour)), noon.Add(12*time.Hour)
			},
			at: 7*time.Hour + 48*time.Minute, step: stepPublish, events: writable,
		},
		"if it is good, not due and a bundle is pending, expect the regular check": {
			change: func(t *testing.T, c *secretCase) {
				c.s.pending, c.s.pendingUntil = c.ca.bundle(t, "emissary", noon, noon.Add(24*time.Hour)), noon.Add(12*time.Hour)
			},
			step: stepDone, next: interval, events: good,
		},
		"if its certificate is not valid yet, expect the source to be asked": {
			at: -90 * time.Minute, step: stepIssue, rejected: []certs.Reason{certs.NotYetValid},
			events: []string{"Warning Rejected " + secret + ": the content of the Secret: not-yet-valid: ", "resolve Conflict " + secret},
		},
		"if the pod publishes it and it is good, expect the regular check": {
			change: func(_ *testing.T, c *secretCase) { c.setSource(policy.Agent) },
			step:   stepDone, next: interval, events: good,
		},
		"if the pod publishes it and it is due, expect the regular check": {
			change: func(_ *testing.T, c *secretCase) { c.setSource(policy.Agent) },
			at:     8 * time.Hour, step: stepDone, next: interval, events: good,
		},
		"if no publisher has renewed it by two thirds of its life, expect the controller to do so": {
			change: func(_ *testing.T, c *secretCase) { c.setSource(policy.Agent) },
			at:     15 * time.Hour, step: stepIssue, events: []string{"resolve Conflict " + secret,
				"Warning PublisherSilent " + secret + ": no publisher has written a certificate in time, so the controller requests one (source istio-ca)"},
		},
		"if that is soon, expect the check then": {
			change: func(_ *testing.T, c *secretCase) { c.setSource(policy.Agent) },
			at:     14*time.Hour + 36*time.Minute - 10*time.Second, step: stepDone, next: 10 * time.Second, events: good,
		},
		"if no publisher wrote it in two minutes, expect the controller to do so": {
			change: func(_ *testing.T, c *secretCase) {
				c.setSource(policy.Agent)
				c.o.secret = nil
				c.s.notGoodSince = noon.Add(-publisherGrace)
			},
			step: stepIssue, events: []string{"resolve Conflict " + secret, "Warning PublisherSilent " + secret + ": no publisher has written a certificate in time, so "},
		},
		"if the pod publishes it and the roots changed, expect them to be added": {
			change: func(t *testing.T, c *secretCase) {
				c.setSource(policy.Agent)
				c.o.secret.Annotations[policy.SourceKey] = "agent"
				c.o.roots = append(c.o.roots, newAuthority(t).Certificate)
			},
			step: stepPublish, events: []string{"Normal RootChanged " + secret, "resolve Conflict " + secret, "resolve PublisherSilent " + secret},
		},
		"if the pod publishes it and it is bad, expect an Event and the regular check": {
			change: func(_ *testing.T, c *secretCase) { c.setSource(policy.Agent); c.o.secret.Data["tls.key"] = nil },
			step:   stepDone, next: interval, rejected: []certs.Reason{certs.Malformed},
			events: []string{"Warning Rejected " + secret, "resolve Conflict " + secret},
		},
		"if the pod publishes it and it is someone else's, expect a conflict": {
			change: func(_ *testing.T, c *secretCase) { c.setSource(policy.Agent); c.o.secret.Labels = nil },
			step:   stepDone, next: interval, results: []publish.Result{publish.RefusedForeign},
			events: []string{"Warning Conflict " + secret + ": secret edge/istio-certs "},
		},
		"if the pod publishes it and it is immutable, expect a conflict": {
			change: func(_ *testing.T, c *secretCase) { c.setSource(policy.Agent); c.o.secret.Immutable = ptr.To(true) },
			step:   stepDone, next: interval, results: []publish.Result{publish.RefusedImmutable},
			events: []string{"Warning Conflict " + secret + ": secret edge/istio-certs is immutable"},
		},
		"if the pod publishes it and it holds another identity, expect a conflict": {
			change: func(_ *testing.T, c *secretCase) {
				c.setSource(policy.Agent)
				c.o.claims[0].serviceAccount = "other"
			},
			step: stepDone, next: interval, results: []publish.Result{publish.RefusedIdentity},
			events: []string{"Warning Conflict " + secret + ": secret edge/istio-certs holds a certificate of spiffe://cluster.local/ns/edge/sa/emissary"},
		},
		"if a pending bundle is half over, expect the source to be asked": {
			change: func(_ *testing.T, c *secretCase) {
				c.o.secret = nil
				c.s.pending, c.s.pendingUntil = c.bundle, noon
			},
			step: stepIssue, events: []string{"resolve Conflict " + secret},
		},
		"if a pending bundle is another's, expect the source to be asked": {
			change: func(t *testing.T, c *secretCase) {
				c.o.secret = nil
				c.s.pending, c.s.pendingUntil = c.ca.bundle(t, "other", noon, noon.Add(time.Hour)), noon.Add(time.Hour)
			},
			step: stepIssue, events: []string{"resolve Conflict " + secret},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newSecretCase(t)
			if test.change != nil {
				test.change(t, c)
			}
			now := noon.Add(test.at)
			d := decideSecret(c.o, c.s, c.rules, now, middle)
			assert.Equal(t, test.step, d.step)
			if test.step == stepDone && test.next != 0 {
				assert.Equal(t, test.next, d.next.Sub(now))
			}
			if test.step == stepPublish {
				assert.Same(t, c.s.pending, d.bundle, "the pending bundle, or none")
			}
			assertEvents(t, test.events, d)
			assert.Equal(t, test.results, d.effects.results)
			assert.Equal(t, test.rejected, d.effects.rejected)
			if test.err == "" {
				assert.NoError(t, d.err)
			} else {
				assert.ErrorContains(t, d.err, test.err)
			}
		})
	}
}

// adopt has the owner give the Secret to Isthmus.
func adopt(c *secretCase) { c.o.secret.Annotations[policy.AdoptKey] = "true" }

func assertEvents(t *testing.T, want []string, d secretDecision) {
	t.Helper()
	got := described(d.effects.events)
	if assert.Len(t, got, len(want), strings.Join(got, "\n")) {
		for i := range want {
			assert.True(t, strings.HasPrefix(got[i], want[i]), "want %s\ngot %s", want[i], got[i])
		}
	}
}

func TestDecideSecretRemembersWhatItSaw(t *testing.T) {
	c := newSecretCase(t)
	d := decideSecret(c.o, c.s, c.rules, noon, middle)
	assert.True(t, d.effects.isObserved)
	assert.Nil(t, d.effects.formerTarget)
	assert.Equal(t, publish.Good, d.state.state)
	assert.Equal(t, string(c.bundle.Roots()), d.state.roots.Value())
	assert.Equal(t, idOf("emissary"), d.state.target.ID)
	assert.Nil(t, d.state.target.Roots, "thousands of states share no roots")
	assert.Equal(t, noon.Add(7*time.Hour), d.state.renewAfter)
	assert.Equal(t, noon.Add(7*time.Hour+48*time.Minute), d.state.due)

	second := decideSecret(c.o, d.state, c.rules, noon.Add(interval), sequence(0))
	assert.Equal(t, d.state.due, second.state.due, "the jitter stays for as long as the renewal point does")

	c.setSource(policy.Mirror)
	third := decideSecret(c.o, d.state, c.rules, noon.Add(interval), middle)
	if assert.NotNil(t, third.effects.formerTarget) {
		assert.Equal(t, "istio-ca", third.effects.formerTarget.Source, "its gauges have another source now")
	}
}

func TestDecideSecretNamesTheFormerTarget(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*secretCase)
		id     string
		source policy.Source
	}{
		"if nothing changed, expect none":                   {func(*secretCase) {}, "", ""},
		"if its source changed, expect the former source":   {func(c *secretCase) { c.setSource(policy.Mirror) }, "emissary", policy.IstioCA},
		"if its holder changed, expect the former identity": {func(c *secretCase) { c.o.secret, c.o.claims[0].serviceAccount = nil, "other" }, "emissary", policy.IstioCA},
		"if it cannot be read, expect none":                 {func(c *secretCase) { c.o.readErr = errors.New("timeout"); c.setSource(policy.Mirror) }, "", ""},
		"if it was never checked, expect none":              {func(c *secretCase) { c.s = secretState{}; c.setSource(policy.Mirror) }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newSecretCase(t)
			c.remembered()
			test.change(c)
			former := decideSecret(c.o, c.s, c.rules, noon, middle).effects.formerTarget
			if test.id == "" {
				assert.Nil(t, former)
				return
			}
			require.NotNil(t, former)
			assert.Equal(t, idOf(test.id), former.ID)
			assert.Equal(t, string(test.source), former.Source)
		})
	}
}

func TestRenewalIsDueAgainAfterTheRenewalPointMoved(t *testing.T) {
	c := newSecretCase(t)
	c.remembered()
	before := c.s.due
	// Someone else published another certificate.
	renewed := c.ca.bundle(t, "emissary", noon, noon.Add(48*time.Hour))
	c.o.secret = c.ca.secretOf(t, renewed, policy.IstioCA, noon)
	d := decideSecret(c.o, c.s, c.rules, noon.Add(interval), middle)
	assert.Equal(t, noon.Add(16*time.Hour), d.state.renewAfter)
	assert.Equal(t, noon.Add(16*time.Hour+96*time.Minute), d.state.due)
	assert.True(t, d.state.due.After(before))
	assert.Equal(t, stepDone, d.step)

	// A bad Secret has no renewal point; the next good one has a new one.
	c.o.secret.Data["tls.key"] = nil
	bad := decideSecret(c.o, d.state, c.rules, noon.Add(interval), middle)
	assert.Zero(t, bad.state.renewAfter)
	assert.Equal(t, d.state.due, bad.state.due)
}

// A mirrored Secret that is due while its source repeats the old bundle is checked
// at the regular interval, and not every millisecond.
func TestSecretThatIsDueWaitsForItsSource(t *testing.T) {
	for _, source := range []policy.Source{policy.Mirror, policy.CertManager} {
		c := newSecretCase(t)
		c.setSource(source)
		c.o.secret = c.ca.secretOf(t, c.bundle, source, noon.Add(-time.Hour))
		now := noon.Add(9 * time.Hour)
		d := decideSecret(c.o, c.s, c.rules, now, middle)
		require.Equal(t, stepIssue, d.step)
		d = decideIssuance(d, c.bundle, nil, now, middle)
		require.Equal(t, stepPublish, d.step)
		require.False(t, d.state.due.After(now))
		outcome := publish.Outcome{Result: publish.Unchanged, Observation: d.holder.observation}
		d = decideOutcome(d, outcome, nil, now, middle)
		assert.Equal(t, stepDone, d.step)
		assert.Equal(t, now.Add(interval), d.next)

		atOnce := secretDecision{regular: now.Add(interval)}.done(now, now)
		assert.Equal(t, now.Add(interval), atOnce.next, "what is due now was just asked for")
	}
}

func TestPendingBundleIsForgottenWithTheRightToWrite(t *testing.T) {
	c := newSecretCase(t)
	c.s.pending, c.s.pendingUntil = c.bundle, noon.Add(time.Hour)
	c.o.secret.Labels = nil
	assert.Nil(t, decideSecret(c.o, c.s, c.rules, noon, middle).state.pending)
}

// The jitter of the first check is half of the interval, and then a tenth.
func TestChecksSpread(t *testing.T) {
	c := newSecretCase(t)
	for random, want := range map[float64]time.Duration{0: 15 * time.Second, 0.5: 30 * time.Second, 1: 45 * time.Second} {
		assert.Equal(t, noon.Add(want), decideSecret(c.o, c.s, c.rules, noon, sequence(random)).next, random)
	}
	c.remembered()
	for random, want := range map[float64]time.Duration{0: 27 * time.Second, 0.5: 30 * time.Second, 1: 33 * time.Second} {
		assert.Equal(t, noon.Add(want), decideSecret(c.o, c.s, c.rules, noon, sequence(random)).next, random)
	}
	for random, want := range map[float64]time.Duration{0: 7 * time.Hour, 1: 8*time.Hour + 36*time.Minute} {
		assert.Equal(t, noon.Add(want), decideSecret(c.o, secretState{}, c.rules, noon, sequence(random)).state.due, "up to a tenth of the rest later")
	}
}

func TestRequest(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*secretCase)
		want   func(*certs.Request)
	}{
		"if no lifetime is given, expect a day": {func(*secretCase) {}, func(r *certs.Request) { r.TTL = 24 * time.Hour }},
		"if the edge names a lifetime, expect that": {
			func(c *secretCase) { c.o.claims[0].options.CertTTL = 48 * time.Hour }, func(r *certs.Request) { r.TTL = 48 * time.Hour },
		},
		"if istiod allows less by default, expect that": {
			func(c *secretCase) { setMaxTTL(c, time.Hour) }, func(r *certs.Request) { r.TTL = time.Hour },
		},
		"if istiod allows more, expect a day": {
			func(c *secretCase) { setMaxTTL(c, 48*time.Hour) }, func(r *certs.Request) { r.TTL = 24 * time.Hour },
		},
		"if istiod allows less and another source issues, expect a day": {
			func(c *secretCase) { setMaxTTL(c, time.Hour); c.setSource(policy.CertManager) }, func(r *certs.Request) { r.TTL = 24 * time.Hour },
		},
		"if the edge names a Secret to mirror, expect that": {
			func(c *secretCase) { c.o.claims[0].options.MirrorSecret = "theirs" },
			func(r *certs.Request) { r.TTL, r.MirrorSecret = 24*time.Hour, "theirs" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newSecretCase(t)
			c.o.secret = nil
			test.change(c)
			d := decideSecret(c.o, c.s, c.rules, noon, middle)
			require.Equal(t, stepIssue, d.step)
			want := certs.Request{
				Namespace: "edge", ServiceAccount: "emissary", Secret: "istio-certs", MirrorSecret: "istio.emissary",
				CAAddress: c.o.mesh[""].CAAddress, TokenAudience: c.o.mesh[""].TokenAudience, ClusterID: c.o.mesh[""].ClusterID,
				Want: certs.Want{ID: idOf("emissary"), Roots: c.ca.roots(), Now: noon},
			}
			test.want(&want)
			assert.Equal(t, want, d.request)
		})
	}
}

func setMaxTTL(c *secretCase, ttl time.Duration) {
	mesh := c.o.mesh[""]
	mesh.MaxCertTTL = patches.Duration(ttl)
	c.o.mesh[""] = mesh
}

// issuing is a decision to ask the source about an absent Secret.
func issuing(t *testing.T, c *secretCase) secretDecision {
	t.Helper()
	c.o.secret = nil
	d := decideSecret(c.o, c.s, c.rules, noon, middle)
	require.Equal(t, stepIssue, d.step)
	return d
}

func TestDecideDelivery(t *testing.T) {
	const secret = "Secret/istio-certs"
	rejection := &certs.Rejection{Reason: certs.WrongUsage, Detail: "the first certificate is a CA's"}
	for name, test := range map[string]struct {
		source   policy.Source
		pending  time.Duration
		bundle   bool
		err      error
		step     secretStep
		next     time.Duration
		events   []string
		rejected []certs.Reason
		failure  string
	}{
		"if istiod issues a certificate, expect an Event and that it is published": {
			source: policy.IstioCA, bundle: true, step: stepPublish, events: []string{"Normal Issued " + secret + ": spiffe://cluster.local/ns/edge/sa/emissary, serial ", "resolve LifetimeChanged " + secret},
		},
		"if another source delivers a certificate, expect that it is published": {source: policy.Mirror, bundle: true, step: stepPublish},
		"if a source has begun, expect to ask again soon":                       {source: policy.CertManager, err: certs.ErrPending, step: stepDone, next: pendingRetry},
		"if a source has begun a minute ago, expect no Event yet": {
			source: policy.CertManager, pending: pendingReportAfter, err: certs.ErrPending, step: stepDone, next: pendingRetry,
		},
		"if a source has begun longer ago, expect an Event": {
			source: policy.CertManager, pending: pendingReportAfter + time.Second, err: fmt.Errorf("certificate edge/istio-certs: %w", certs.ErrPending), step: stepDone, next: pendingRetry,
			events: []string{"Warning Failed " + secret + ": certificate edge/istio-certs: the certificate is not issued yet"},
		},
		"if the source fails, expect an Event and a retry": {
			source: policy.IstioCA, err: errors.New("connection refused"), step: stepDone, next: interval,
			events:  []string{"Warning Failed " + secret + ": connection refused"},
			failure: "certificate for secret edge/istio-certs: connection refused",
		},
		"if the source delivers no valid bundle, expect an Event, a count and a retry": {
			source: policy.IstioCA, err: rejection, step: stepDone, next: interval,
			events:   []string{"Warning Rejected " + secret + ": wrong-usage: the first certificate is a CA's"},
			rejected: []certs.Reason{certs.WrongUsage},
			failure:  "certificate for secret edge/istio-certs: wrong-usage",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newSecretCase(t)
			c.setSource(test.source)
			if test.pending != 0 {
				c.s.pendingSince = noon.Add(-test.pending)
			}
			before := issuing(t, c)
			var bundle *certs.Bundle
			if test.bundle {
				bundle = c.bundle
			}
			d := decideIssuance(before, bundle, test.err, noon, middle)
			assert.Equal(t, test.step, d.step)
			assertEvents(t, test.events, d)
			assert.Equal(t, test.rejected, d.effects.rejected)
			switch test.step {
			case stepPublish:
				assert.Same(t, c.bundle, d.bundle)
			case stepDone:
				assert.WithinRange(t, d.next, noon.Add(test.next*19/20), noon.Add(test.next))
			}
			if errors.Is(test.err, certs.ErrPending) {
				assert.Equal(t, noon.Add(-test.pending), d.state.pendingSince)
			}
			if test.failure == "" {
				assert.NoError(t, d.err)
			} else {
				assert.ErrorContains(t, d.err, test.failure)
			}
		})
	}
}

func TestSecretStepsEndAtAnUnknownStep(t *testing.T) {
	d := takeSecretSteps(secretDecision{step: "dance", regular: noon.Add(interval)}, secretSteps{apply: func(secretDecision) {}})
	assert.Equal(t, stepDone, d.step)
	assert.Equal(t, noon.Add(interval), d.next)
	assert.ErrorContains(t, d.err, `unexpected step "dance"`)
}

func TestPendingBundleIsKeptOnce(t *testing.T) {
	c := newSecretCase(t)
	s := secretState{}.keepPending(nil, noon)
	assert.Nil(t, s.pending)
	s = s.keepPending(c.bundle, noon)
	until := s.pendingUntil
	s = s.keepPending(c.bundle, noon.Add(time.Hour))
	assert.Equal(t, until, s.pendingUntil, "the same bundle is not used for longer")
	next := c.ca.bundle(t, "emissary", noon, noon.Add(time.Hour))
	assert.Same(t, next, s.keepPending(next, noon).pending)
}

// A Secret's life in virtual time: the same decisions as in a cluster, without one.
func TestSecretLivesInVirtualTime(t *testing.T) {
	ca, store := newAuthority(t), &memory{}
	s, now := secretState{}, noon
	clock := func() time.Time { return now }
	random := sequence(0.1, 0.9, 0.3, 0.7)
	var serials []string
	var failures, total int
	isAway := func() bool { return now.After(noon.Add(20*time.Hour)) && now.Before(noon.Add(30*time.Hour)) }
	for now.Before(noon.Add(72 * time.Hour)) {
		o := secretObservation{
			namespace: "edge", name: "istio-certs", claims: []claim{podClaim("front", "emissary", time.Hour)}, roots: ca.roots(), mesh: defaultMesh(), interval: 10 * time.Minute,
		}
		o.secret, _ = store.Get(t.Context(), "edge", "istio-certs")
		d := takeSecretSteps(decideSecret(o, s, testRules(), now, random), secretSteps{
			now: clock, random: random,
			apply: func(d secretDecision) { s = d.state },
			issue: func(secretDecision) (*certs.Bundle, error) {
				if isAway() {
					return nil, errors.New("istiod is away")
				}
				return ca.bundle(t, "emissary", now, now.Add(24*time.Hour)), nil
			},
			publish: func(d secretDecision) (publish.Outcome, error) {
				p := publish.Publisher{Secrets: store, Now: clock}
				outcome, err := p.Publish(t.Context(), d.holder.target, d.bundle, publish.WhenNewer)
				if outcome.Result == publish.Published {
					serials = append(serials, outcome.Observation.Bundle.Serial())
				}
				return outcome, err
			},
			remove: func(secretDecision) error { return errors.New("there is one source") },
		})
		if d.err != nil {
			failures, total = failures+1, total+1
			now = now.Add(retryAfter(failures, 5*time.Minute, s.lifeLeft(now), random))
			continue
		}
		failures = 0
		require.True(t, d.next.After(now), "time goes on")
		require.Equal(t, publish.Good, s.state)
		now = d.next
	}
	assert.Positive(t, total, "istiod was away while the Secret was due")
	assert.Len(t, serials, store.applies)
	assert.InDelta(t, 8, len(serials), 2, "one at a third of each life")
}
