package serving

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// The time of the decision in every case below.
func decisionTime() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

func carrying(pairs ...*pair) view {
	v := view{found: true, kind: mutating, name: testConfiguration, webhooks: []webhookView{{name: "one"}, {name: "two"}}}
	for i := range v.webhooks {
		for _, p := range pairs {
			v.webhooks[i].roots = v.webhooks[i].roots.with(p.root)
		}
	}
	return v
}

func TestDecide(t *testing.T) {
	now := decisionTime()
	pairAt := func(age time.Duration) *pair {
		p, err := newPair(now.Add(-age), caTTL)
		require.NoError(t, err)
		return p
	}
	a, b, made := pairAt(time.Hour), pairAt(time.Minute), pairAt(0)
	ageing, expired := pairAt(9*time.Hour), pairAt(13*time.Hour)
	bundle := func(pairs ...*pair) (r roots) {
		for _, p := range pairs {
			r = r.with(p.root)
		}
		return r
	}
	at := func(p phase, ago time.Duration, signing, next *pair, b roots) state {
		return state{signing: signing, next: next, bundle: b, phase: p, since: now.Add(-ago)}
	}

	tests := map[string]struct {
		secret    state
		damage    func(*corev1.Secret)
		published view
		wrongAgo  time.Duration // when the configuration was last seen wrong
		last      state         // what this keeper saw before
		want      state
		reason    string    // nothing is written when empty
		due       time.Time // when to look again
	}{
		"if the Secret and the configuration are empty, expect a CA that signs at once": {
			damage: empty, published: carrying(),
			want: at(stable, 0, made, nil, bundle(made)), reason: "made the first CA",
		},
		"if there is no configuration yet, expect the same": {
			damage: empty, published: view{name: testConfiguration},
			want: at(stable, 0, made, nil, bundle(made)), reason: "made the first CA",
		},
		"if the Secret is empty but the configuration carries a root, expect leaves of it to be in use": {
			damage: empty, published: carrying(a),
			want: at(announcing, 0, nil, made, bundle(a, made)), reason: "mended: there is no certificate authority in it",
		},
		"if all that the configuration carries has expired, expect no leaf to be in use": {
			damage: empty, published: carrying(expired),
			want: at(stable, 0, made, nil, bundle(made)), reason: "made the first CA",
		},
		"if the CA is young, expect nothing until two thirds of its life": {
			secret: at(stable, time.Hour, a, nil, bundle(a)), published: carrying(a),
			want: at(stable, time.Hour, a, nil, bundle(a)), due: a.renewAt(),
		},
		"if the CA is old, expect the next one beside it": {
			secret: at(stable, time.Hour, ageing, nil, bundle(ageing)), published: carrying(ageing),
			want:   at(announcing, 0, ageing, made, bundle(ageing, made)),
			reason: "two thirds of the CA's life are over, announced the next CA " + made.String(),
		},
		"if the CA is old and there is no configuration, expect the next one all the same": {
			secret: at(stable, time.Hour, ageing, nil, bundle(ageing)), published: view{},
			want:   at(announcing, 0, ageing, made, bundle(ageing, made)),
			reason: "two thirds of the CA's life are over, announced the next CA " + made.String(),
		},
		"if the next CA is not carried yet, expect to wait for the configuration": {
			secret: at(announcing, time.Hour, a, b, bundle(a, b)), published: carrying(a),
			want: at(announcing, time.Hour, a, b, bundle(a, b)),
		},
		"if the next CA is carried, expect the wait to begin": {
			secret: at(announcing, time.Hour, a, b, bundle(a, b)), published: carrying(a, b),
			want: at(announced, 0, a, b, bundle(a, b)), reason: "the configuration carries the next CA, waiting for every API server to know it",
		},
		"if the wait is not over, expect to look when it is": {
			secret: at(announced, delay-time.Second, a, b, bundle(a, b)), published: carrying(a, b),
			want: at(announced, delay-time.Second, a, b, bundle(a, b)), due: now.Add(time.Second),
		},
		"if the wait is over, expect the next CA to sign, and both in the bundle": {
			secret: at(announced, delay, a, b, bundle(a, b)), published: carrying(a, b),
			want: at(promoted, 0, b, nil, bundle(a, b)), reason: "every API server knows the next CA, it signs from now on",
		},
		"if the wait is over but the configuration was wrong since, expect a whole wait after that": {
			secret: at(announced, time.Hour, a, b, bundle(a, b)), published: carrying(a, b), wrongAgo: time.Minute,
			want: at(announced, time.Hour, a, b, bundle(a, b)), due: now.Add(delay - time.Minute),
		},
		"if the wait is over but the configuration is wrong, expect nothing": {
			secret: at(announced, delay, a, b, bundle(a, b)), published: carrying(a),
			want: at(announced, delay, a, b, bundle(a, b)), due: now,
		},
		"if the second wait is not over, expect to look when it is": {
			secret: at(promoted, delay-time.Second, b, nil, bundle(a, b)), published: carrying(a, b),
			want: at(promoted, delay-time.Second, b, nil, bundle(a, b)), due: now.Add(time.Second),
		},
		"if the second wait is over, expect the old root to go": {
			secret: at(promoted, delay, b, nil, bundle(a, b)), published: carrying(a, b),
			want: at(stable, 0, b, nil, bundle(b)), reason: "dropped from the bundle: " + a.String(),
		},
		"if the CA expired while the next one waits, expect the next one to sign at once": {
			secret: at(announced, time.Minute, expired, b, bundle(expired, b)), published: carrying(expired, b),
			want: at(stable, 0, b, nil, bundle(b)), reason: "mended: tls.crt and tls.key: the certificate expired at 2026-06-01T11:00:00Z",
		},
		"if the phase began in the far future, expect the wait to start again": {
			secret: at(announced, -time.Hour, a, b, bundle(a, b)), published: carrying(a, b),
			want: at(announced, 0, a, b, bundle(a, b)), reason: "the phase was not what the certificates say, its wait starts again",
		},
		"if a root was added by hand, expect it to be dropped in time": {
			secret: at(stable, time.Hour, a, nil, bundle(a, b)), published: carrying(a, b),
			want: at(promoted, 0, a, nil, bundle(a, b)), reason: "the phase was not what the certificates say, its wait starts again",
		},
		"if another CA took the place of the one whose leaves are in use, expect it to be announced first": {
			secret: at(stable, time.Hour, b, nil, bundle(b)), published: carrying(a), last: at(stable, time.Hour, a, nil, bundle(a)),
			want:   at(announcing, 0, nil, b, bundle(b, a)),
			reason: "mended: ca.crt lost the CA " + a.String() + ", whose leaves are in use, in one step",
		},
		"if it did before this keeper started, expect the same of what the configuration says": {
			secret: at(stable, time.Hour, b, nil, bundle(b)), published: carrying(a),
			want:   at(announcing, 0, nil, b, bundle(b, a)),
			reason: "mended: the configuration knows other CAs than " + b.String() + ", whose leaves may be in use",
		},
		"if the configuration carries a stranger's root, expect the Secret to be left alone": {
			secret: at(stable, time.Hour, b, nil, bundle(b)), published: carrying(a), last: at(stable, time.Hour, b, nil, bundle(b)),
			want: at(stable, time.Hour, b, nil, bundle(b)), due: b.renewAt(),
		},
		"if it did and the configuration carries it, expect the replicas to follow": {
			secret: at(stable, time.Hour, b, nil, bundle(b)), published: carrying(b), last: at(stable, time.Hour, a, nil, bundle(a)),
			want: at(stable, time.Hour, b, nil, bundle(b)), due: b.renewAt(),
		},
		"if a key is of another pair, expect its certificate to be trusted on and another CA to be announced": {
			secret: at(stable, time.Hour, a, nil, bundle(a)), published: carrying(a),
			damage: func(s *corev1.Secret) { s.Data[corev1.TLSPrivateKeyKey] = b.keyPEM },
			want:   at(announcing, 0, nil, made, bundle(a, made)),
			reason: "mended: tls.crt and tls.key: tls: private key does not match public key",
		},
		"if the CA that signs is lost while the next one is announced, expect the next one to go on": {
			secret: at(announced, delay, a, b, bundle(a, b)), published: carrying(a, b),
			damage: func(s *corev1.Secret) { delete(s.Data, corev1.TLSPrivateKeyKey) },
			want:   at(announcing, 0, nil, b, bundle(a, b)),
			reason: "mended: tls.crt and tls.key: tls: failed to find any PEM data in key input",
		},
		"if the bundle is nonsense, expect it to be written anew": {
			secret: at(stable, time.Hour, a, nil, bundle(a)), published: carrying(a), last: at(stable, time.Hour, a, nil, bundle(a)),
			damage: func(s *corev1.Secret) { s.Data[BundleKey] = []byte("nonsense") },
			want:   at(stable, 0, a, nil, bundle(a)),
			reason: "mended: ca.crt is no clean list of certificates; ca.crt lacks the CA " + a.String(),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			secret := emptySecret()
			if test.secret.phase != "" {
				test.secret.write(secret)
			}
			if test.damage != nil {
				test.damage(secret)
			}
			o := observation{now: now, secret: readState(secret, now, state{}), published: test.published, last: test.last}
			if test.wrongAgo > 0 {
				o.publishedSince = now.Add(-test.wrongAgo)
			}
			d, err := planner{delay: delay, make: func(time.Time) (*pair, error) { return made, nil }}.decide(o)
			require.NoError(t, err)

			assert.Equal(t, test.reason, d.reason)
			assert.True(t, test.due.Equal(d.due), "want to look again at %s, got %s", test.due, d.due)
			assert.Equal(t, test.want.signing.String(), d.state.signing.String(), "signing")
			assert.Equal(t, test.want.next.String(), d.state.next.String(), "next")
			assert.ElementsMatch(t, test.want.bundle, d.state.bundle, "bundle")
			assert.Equal(t, test.want.phase, d.state.phase)
			assert.True(t, test.want.since.Equal(d.state.since), "want since %s, got %s", test.want.since, d.state.since)
		})
	}
}

func empty(s *corev1.Secret) { s.Data, s.Annotations = nil, nil }
