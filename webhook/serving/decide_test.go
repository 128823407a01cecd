package serving

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// decisionTime is the time of the decision in every case below.
func decisionTime() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

// trusting is a configuration whose two webhooks trust the given authorities.
func trusting(authorities ...*authority) configurationView {
	v := configurationView{found: true, kind: mutating, name: testConfiguration, webhooks: []webhookView{{name: "one"}, {name: "two"}}}
	for i := range v.webhooks {
		v.webhooks[i].roots = rootsOf(authorities...)
	}
	return v
}

func rootsOf(authorities ...*authority) (r roots) {
	for _, a := range authorities {
		r = r.union(a.root)
	}
	return r
}

func TestDecide(t *testing.T) {
	now := decisionTime()
	newCA := func(age time.Duration) *authority {
		ca, err := newAuthority(now.Add(-age), caTTL)
		require.NoError(t, err)
		return ca
	}
	a, b, generated := newCA(time.Hour), newCA(time.Minute), newCA(0)
	old, expired := newCA(9*time.Hour), newCA(13*time.Hour)
	in := func(p phase, ago time.Duration, signing, next *authority, bundle roots) rotationState {
		return rotationState{signing: signing, next: next, bundle: bundle, phase: p, since: now.Add(-ago)}
	}
	const restarted = "the phase annotations did not fit the certificates: the phase starts again"

	tests := map[string]struct {
		secret      rotationState
		damage      func(*corev1.Secret)
		published   configurationView
		mismatchAgo time.Duration // when the configuration last lacked the bundle
		last        rotationState // what this rotator saw before
		want        rotationState
		reason      string    // nothing is written when empty
		due         time.Time // when to decide again
	}{
		// An empty Secret.
		"if the Secret is empty and no root is trusted, expect a CA that signs at once": {
			damage: empty, published: trusting(),
			want: in(stable, 0, generated, nil, rootsOf(generated)), reason: "created the first CA",
		},
		"if the Secret is empty and no configuration exists, expect a CA that signs at once": {
			damage: empty, published: configurationView{name: testConfiguration},
			want: in(stable, 0, generated, nil, rootsOf(generated)), reason: "created the first CA",
		},
		"if the Secret is empty but a root is trusted, expect leaves of that root to be in use": {
			damage: empty, published: trusting(a),
			want: in(announcing, 0, nil, generated, rootsOf(a, generated)), reason: "repaired: it holds no certificate authority",
		},
		"if the Secret is empty and all trusted roots have expired, expect no leaf to be in use": {
			damage: empty, published: trusting(expired),
			want: in(stable, 0, generated, nil, rootsOf(generated)), reason: "created the first CA",
		},

		// Phase stable.
		"if the CA is young, expect nothing until two thirds of its lifetime": {
			secret: in(stable, time.Hour, a, nil, rootsOf(a)), published: trusting(a),
			want: in(stable, time.Hour, a, nil, rootsOf(a)), due: a.renewAt(),
		},
		"if the CA is old, expect the next one beside it": {
			secret: in(stable, time.Hour, old, nil, rootsOf(old)), published: trusting(old),
			want:   in(announcing, 0, old, generated, rootsOf(old, generated)),
			reason: "two thirds of the CA's lifetime are over: announced the next CA " + generated.String(),
		},
		"if the CA is old and no configuration exists, expect the next one all the same": {
			secret: in(stable, time.Hour, old, nil, rootsOf(old)),
			want:   in(announcing, 0, old, generated, rootsOf(old, generated)),
			reason: "two thirds of the CA's lifetime are over: announced the next CA " + generated.String(),
		},

		// Phase announcing.
		"if the next CA is not trusted yet, expect to wait for the configuration": {
			secret: in(announcing, time.Hour, a, b, rootsOf(a, b)), published: trusting(a),
			want: in(announcing, time.Hour, a, b, rootsOf(a, b)),
		},
		"if the next CA is announced and no configuration exists, expect to wait for it": {
			secret: in(announcing, time.Hour, a, b, rootsOf(a, b)),
			want:   in(announcing, time.Hour, a, b, rootsOf(a, b)),
		},
		"if the next CA is trusted, expect the wait to begin": {
			secret: in(announcing, time.Hour, a, b, rootsOf(a, b)), published: trusting(a, b),
			want: in(announced, 0, a, b, rootsOf(a, b)), reason: "the configurations trust the next CA: waiting until every API server does",
		},
		"if no CA signs but a root of its leaves is valid, expect the wait to begin": {
			secret: in(announcing, time.Hour, nil, b, rootsOf(a, b)), published: trusting(a, b),
			want: in(announced, 0, nil, b, rootsOf(a, b)), reason: "the configurations trust the next CA: waiting until every API server does",
		},
		"if no CA signs and no other root is left, expect the next one to sign at once": {
			secret: in(announcing, time.Hour, nil, b, rootsOf(b)),
			want:   in(stable, 0, b, nil, rootsOf(b)), reason: "no leaf can be in use: the next CA signs at once",
		},
		"if no CA signs and every other root has expired, expect the next one to sign at once": {
			secret: in(announcing, time.Hour, nil, b, rootsOf(expired, b)),
			want:   in(promoted, 0, b, nil, rootsOf(expired, b)), reason: "no leaf can be in use: the next CA signs at once",
		},

		// Phase announced.
		"if the first wait is not over, expect to decide when it is": {
			secret: in(announced, delay-time.Second, a, b, rootsOf(a, b)), published: trusting(a, b),
			want: in(announced, delay-time.Second, a, b, rootsOf(a, b)), due: now.Add(time.Second),
		},
		"if the first wait is over, expect the next CA to sign, and both in the bundle": {
			secret: in(announced, delay, a, b, rootsOf(a, b)), published: trusting(a, b),
			want: in(promoted, 0, b, nil, rootsOf(a, b)), reason: "every API server trusts the next CA: it signs from now on",
		},
		"if the first wait is over but the configuration was wrong since, expect a whole wait after that": {
			secret: in(announced, time.Hour, a, b, rootsOf(a, b)), published: trusting(a, b), mismatchAgo: time.Minute,
			want: in(announced, time.Hour, a, b, rootsOf(a, b)), due: now.Add(delay - time.Minute),
		},
		"if the first wait is over but the configuration is wrong, expect nothing": {
			secret: in(announced, delay, a, b, rootsOf(a, b)), published: trusting(a),
			want: in(announced, delay, a, b, rootsOf(a, b)), due: now,
		},
		"if the CA expired during the first wait, expect the next one to sign at once": {
			secret: in(announced, time.Minute, expired, b, rootsOf(expired, b)), published: trusting(expired, b),
			want: in(stable, 0, b, nil, rootsOf(b)), reason: "repaired: tls.crt and tls.key: the certificate expired at 2026-06-01T11:00:00Z",
		},

		// Phase promoted.
		"if the second wait is not over, expect to decide when it is": {
			secret: in(promoted, delay-time.Second, b, nil, rootsOf(a, b)), published: trusting(a, b),
			want: in(promoted, delay-time.Second, b, nil, rootsOf(a, b)), due: now.Add(time.Second),
		},
		"if the second wait is over, expect the old root to go": {
			secret: in(promoted, delay, b, nil, rootsOf(a, b)), published: trusting(a, b),
			want: in(stable, 0, b, nil, rootsOf(b)), reason: "removed from the bundle: " + a.String(),
		},
		"if the second wait is over but the configuration was wrong since, expect a whole wait after that": {
			secret: in(promoted, time.Hour, b, nil, rootsOf(a, b)), published: trusting(a, b), mismatchAgo: time.Minute,
			want: in(promoted, time.Hour, b, nil, rootsOf(a, b)), due: now.Add(delay - time.Minute),
		},
		"if the second wait is over but the configuration is wrong, expect the old root to stay": {
			secret: in(promoted, delay, b, nil, rootsOf(a, b)), published: trusting(b),
			want: in(promoted, delay, b, nil, rootsOf(a, b)), due: now,
		},

		// Annotations that do not fit.
		"if the phase began in the far future, expect the wait to start again": {
			secret: in(announced, -time.Hour, a, b, rootsOf(a, b)), published: trusting(a, b),
			want: in(announced, 0, a, b, rootsOf(a, b)), reason: restarted,
		},
		"if the phase began a little in the future, expect a clock that is ahead, and a longer wait": {
			secret: in(announced, -time.Minute, a, b, rootsOf(a, b)), published: trusting(a, b),
			want: in(announced, -time.Minute, a, b, rootsOf(a, b)), due: now.Add(time.Minute + delay),
		},
		"if the time of the phase is missing, expect the wait to start again": {
			secret: in(promoted, delay, b, nil, rootsOf(a, b)), published: trusting(a, b),
			damage: func(s *corev1.Secret) { delete(s.Annotations, PhaseSinceAnnotation) },
			want:   in(promoted, 0, b, nil, rootsOf(a, b)), reason: restarted,
		},
		"if the phase is stable but a next CA exists, expect it to be announced": {
			secret: in(stable, time.Hour, a, b, rootsOf(a, b)), published: trusting(a, b),
			want: in(announcing, 0, a, b, rootsOf(a, b)), reason: restarted,
		},
		"if the phase is announced but no next CA exists, expect it to be stable": {
			secret: in(announced, time.Hour, a, nil, rootsOf(a)), published: trusting(a),
			want: in(stable, 0, a, nil, rootsOf(a)), reason: restarted,
		},
		"if a root was added by hand, expect it to be removed after a wait": {
			secret: in(stable, time.Hour, a, nil, rootsOf(a, b)), published: trusting(a, b),
			want: in(promoted, 0, a, nil, rootsOf(a, b)), reason: restarted,
		},

		// Another CA in place of the one that signs.
		"if another CA replaced the one whose leaves are in use, expect it to be announced first": {
			secret: in(stable, time.Hour, b, nil, rootsOf(b)), published: trusting(a), last: in(stable, time.Hour, a, nil, rootsOf(a)),
			want:   in(announcing, 0, nil, b, rootsOf(b, a)),
			reason: "repaired: ca.crt lost the CA " + a.String() + " in one step, while its leaves are in use",
		},
		"if that happened before this rotator started, expect the configuration to show it": {
			secret: in(stable, time.Hour, b, nil, rootsOf(b)), published: trusting(a),
			want:   in(announcing, 0, nil, b, rootsOf(b, a)),
			reason: "repaired: the configurations trust other CAs than " + b.String() + ", and leaves of those may be in use",
		},
		"if the configuration trusts an unknown root, expect the Secret to stay": {
			secret: in(stable, time.Hour, b, nil, rootsOf(b)), published: trusting(a), last: in(stable, time.Hour, b, nil, rootsOf(b)),
			want: in(stable, time.Hour, b, nil, rootsOf(b)), due: b.renewAt(),
		},
		"if the configuration trusts the other CA already, expect the replicas to follow": {
			secret: in(stable, time.Hour, b, nil, rootsOf(b)), published: trusting(b), last: in(stable, time.Hour, a, nil, rootsOf(a)),
			want: in(stable, time.Hour, b, nil, rootsOf(b)), due: b.renewAt(),
		},
		"if the replaced CA had expired, expect the other one to sign": {
			secret: in(stable, time.Hour, b, nil, rootsOf(b)), published: trusting(expired), last: in(stable, time.Hour, expired, nil, rootsOf(expired)),
			want: in(stable, time.Hour, b, nil, rootsOf(b)), due: b.renewAt(),
		},

		// Damaged content.
		"if the key belongs to another CA, expect the root to stay trusted and another CA to be announced": {
			secret: in(stable, time.Hour, a, nil, rootsOf(a)), published: trusting(a),
			damage: func(s *corev1.Secret) { s.Data[corev1.TLSPrivateKeyKey] = b.keyPEM },
			want:   in(announcing, 0, nil, generated, rootsOf(a, generated)),
			reason: "repaired: tls.crt and tls.key: tls: private key does not match public key",
		},
		"if the signing key is lost while the next CA is announced, expect the next one to continue": {
			secret: in(announced, delay, a, b, rootsOf(a, b)), published: trusting(a, b),
			damage: func(s *corev1.Secret) { delete(s.Data, corev1.TLSPrivateKeyKey) },
			want:   in(announcing, 0, nil, b, rootsOf(a, b)),
			reason: "repaired: tls.crt and tls.key: tls: failed to find any PEM data in key input",
		},
		"if the next CA is damaged, expect the signing one to continue": {
			secret: in(announcing, time.Hour, a, b, rootsOf(a, b)), published: trusting(a),
			damage: func(s *corev1.Secret) { delete(s.Data, NextPrivateKeyKey) },
			want:   in(promoted, 0, a, nil, rootsOf(a, b)),
			reason: "repaired: next.crt and next.key: tls: failed to find any PEM data in key input",
		},
		"if the bundle is not PEM, expect it to be written again": {
			secret: in(stable, time.Hour, a, nil, rootsOf(a)), published: trusting(a), last: in(stable, time.Hour, a, nil, rootsOf(a)),
			damage: func(s *corev1.Secret) { s.Data[BundleKey] = []byte("nonsense") },
			want:   in(stable, 0, a, nil, rootsOf(a)),
			reason: "repaired: ca.crt is not a clean list of PEM certificates; ca.crt lacks the CA " + a.String(),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			secret := newSecret()
			if test.secret.phase != "" {
				test.secret.writeTo(secret)
			}
			if test.damage != nil {
				test.damage(secret)
			}
			o := observation{now: now, secret: parseSecret(secret, now, rotationState{}), published: test.published, last: test.last}
			if test.mismatchAgo > 0 {
				o.lastMismatch = now.Add(-test.mismatchAgo)
			}
			d, err := decide(o, delay, func(time.Time) (*authority, error) { return generated, nil })
			require.NoError(t, err)

			assert.Equal(t, test.reason, d.reason)
			assert.True(t, test.due.Equal(d.due), "want the next decision at %s, got %s", test.due, d.due)
			assert.Equal(t, test.want.signing.String(), d.state.signing.String(), "signing")
			assert.Equal(t, test.want.next.String(), d.state.next.String(), "next")
			assert.ElementsMatch(t, test.want.bundle, d.state.bundle, "bundle")
			assert.Equal(t, test.want.phase, d.state.phase)
			assert.True(t, test.want.since.Equal(d.state.since), "want since %s, got %s", test.want.since, d.state.since)
		})
	}
}

func empty(s *corev1.Secret) { s.Data, s.Annotations = nil, nil }

func TestDecideReturnsTheErrorOfGeneration(t *testing.T) {
	now := decisionTime()
	old, err := newAuthority(now.Add(-9*time.Hour), caTTL)
	require.NoError(t, err)
	stableSecret := newSecret()
	rotationState{signing: old, bundle: rootsOf(old), phase: stable, since: now}.writeTo(stableSecret)
	for name, secret := range map[string]*corev1.Secret{"first CA": newSecret(), "next CA": stableSecret} {
		t.Run(name, func(t *testing.T) {
			_, err := decide(observation{now: now, secret: parseSecret(secret, now, rotationState{})}, delay,
				func(time.Time) (*authority, error) { return nil, errors.New("no entropy") })
			assert.EqualError(t, err, "no entropy")
		})
	}
}

// rotation applies decisions in virtual time, as a Rotator does whose every write
// succeeds.
type rotation struct {
	t         *testing.T
	now       time.Time
	secret    *corev1.Secret
	published configurationView
	trusted   map[string]time.Time // since when API servers trust a root
	last      rotationState
	mismatch  time.Time
}

// step decides once, and checks that no authority starts to sign before every API
// server has had delay to learn of it, as long as another one's leaves may be in use.
func (r *rotation) step() decision {
	r.t.Helper()
	before := parseSecret(r.secret, r.now, rotationState{})
	inUse := r.published.roots().usable(r.now)
	d, err := decide(observation{
		now: r.now, secret: parseSecret(r.secret, r.now, r.last), published: r.published, lastMismatch: r.mismatch, last: r.last,
	}, delay, func(now time.Time) (*authority, error) { return newAuthority(now, caTTL) })
	require.NoError(r.t, err)
	if d.reason != "" {
		if signing := d.state.signing; signing != nil && !signing.equal(before.signing) && len(inUse.difference(signing.root)) > 0 {
			since, found := r.trusted[signing.String()]
			require.True(r.t, found && r.now.Sub(since) >= delay, "%s signs before every API server trusts it (%s)", signing, d.reason)
		}
		d.state.writeTo(r.secret)
		return d
	}
	r.last = d.state
	if !bytes.Equal(d.state.bundle.encode(), r.published.roots().encode()) {
		r.mismatch = r.now
		r.published = configurationView{found: true, kind: mutating, webhooks: []webhookView{{roots: d.state.bundle}}}
		trusted := map[string]time.Time{}
		for _, root := range d.state.bundle {
			trusted[describeCertificate(root)] = r.now
			if since, found := r.trusted[describeCertificate(root)]; found {
				trusted[describeCertificate(root)] = since
			}
		}
		r.trusted = trusted
	}
	return d
}

// runUntil steps until a decision leaves the Secret in the phase. It advances the
// time to when the decision is due, or by a minute.
func (r *rotation) runUntil(wanted phase, limit time.Duration) {
	r.t.Helper()
	for end := r.now.Add(limit); !r.now.After(end); {
		d := r.step()
		switch {
		case d.reason != "":
		case d.state.phase == wanted:
			return
		case d.due.After(r.now):
			r.now = d.due
		default:
			r.now = r.now.Add(time.Minute)
		}
	}
	require.Fail(r.t, "the rotation did not reach phase "+string(wanted))
}

// Every damage in every phase, with and without the memory of a running rotator.
func TestDecideRepairsEveryDamageInEveryPhase(t *testing.T) {
	for _, at := range []phase{stable, announcing, announced, promoted} {
		for _, damage := range damages() {
			for name, restart := range map[string]bool{"running": false, "restarted": true} {
				t.Run(string(at)+"/"+damage.name+"/"+name, func(t *testing.T) {
					r := &rotation{t: t, now: decisionTime(), secret: newSecret(), published: trusting(), trusted: map[string]time.Time{}}
					r.runUntil(stable, time.Hour)
					if at == announcing { // it lasts until the next step
						r.now = r.now.Add(caTTL * 2 / 3)
						require.Equal(t, announcing, r.step().state.phase)
					} else {
						r.runUntil(at, 2*caTTL)
					}
					inUse := parseSecret(r.secret, r.now, rotationState{}).signing

					damage.apply(r.secret)
					if restart {
						r.last, r.mismatch = rotationState{}, time.Time{}
					}
					r.step()
					assert.True(t, parseSecret(r.secret, r.now, rotationState{}).bundle.contains(inUse.root), "the root of the leaves in use stays in the bundle")
					// A lost next CA means a whole rotation more.
					r.runUntil(stable, 4*delay)
					repaired := parseSecret(r.secret, r.now, rotationState{})
					assert.Empty(t, repaired.problems)
					assert.NotNil(t, repaired.signing)
					assert.Nil(t, repaired.next)
					assert.True(t, r.published.trusts(repaired.signing.root))
				})
			}
		}
	}
}
