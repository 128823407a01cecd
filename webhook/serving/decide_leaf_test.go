package serving

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDecideLeaf(t *testing.T) {
	now := decisionTime()
	newCA := func(created time.Time) *authority {
		ca, err := newAuthority(created, caTTL)
		require.NoError(t, err)
		return ca
	}
	current, next, expired := newCA(now.Add(-time.Hour)), newCA(now), newCA(now.Add(-2*caTTL))
	signed := func(ca *authority, at time.Time) *leaf {
		l, err := ca.signLeaf(Options{LeafTTL: leafTTL, DNSNames: []string{"isthmus.test"}}, at)
		require.NoError(t, err)
		return l
	}
	const (
		first    = "there is no certificate yet"
		changed  = "the certificate authority changed"
		setBack  = "the clock was set back to before the current certificate's validity"
		renewing = "two thirds of the current certificate's lifetime are over"
	)
	young := signed(current, now.Add(-time.Minute))
	tests := map[string]struct {
		leaf          *leaf
		signing, next *authority
		published     configurationView
		want          *authority // nil: the leaf stays
		reason        string
	}{
		"if there is no leaf and no CA, expect none":                          {published: trusting(current)},
		"if there is no leaf, expect the CA that signs":                       {signing: next, published: trusting(next), want: next, reason: first},
		"if there is no leaf and no configuration, expect the CA that signs":  {signing: next, want: next, reason: first},
		"if there is no leaf and only a next CA, expect it when trusted":      {next: next, published: trusting(current, next), want: next, reason: first},
		"if there is no leaf and the next CA is not trusted, expect none":     {next: next, published: trusting(current)},
		"if there is no leaf, expect the CA that signs, not the next one":     {signing: current, next: next, published: trusting(current, next), want: current, reason: first},
		"if the leaf is young, expect it to stay":                             {leaf: young, signing: current, published: trusting(current)},
		"if the Secret cannot be read, expect the leaf to stay":               {leaf: young},
		"if there is a leaf, expect the next CA to wait for its promotion":    {leaf: young, next: next, published: trusting(current, next)},
		"if another CA signs, expect it when trusted":                         {leaf: young, signing: next, published: trusting(current, next), want: next, reason: changed},
		"if another CA signs and is not trusted, expect the leaf to stay":     {leaf: young, signing: next, published: trusting(current)},
		"if another CA signs and no configuration is there, expect no change": {leaf: young, signing: next},
		"if the leaf's CA expired, expect the other CA, trusted or not": {
			leaf: signed(expired, now.Add(-2*caTTL)), signing: next, published: trusting(current), want: next, reason: changed,
		},
		"if the leaf is due, expect another of the same CA": {
			leaf: signed(current, now.Add(-80*time.Minute)), signing: current, published: trusting(current), want: current, reason: renewing,
		},
		"if the leaf is almost due, expect it to stay": {
			leaf: signed(current, now.Add(-76*time.Minute)), signing: current, published: trusting(current),
		},
		"if the leaf is due and the Secret cannot be read, expect another of the CA in memory": {
			leaf: signed(current, now.Add(-80*time.Minute)), want: current, reason: renewing,
		},
		"if the leaf is due and another CA is not trusted, expect another of the same CA": {
			leaf: signed(current, now.Add(-80*time.Minute)), signing: next, published: trusting(current), want: current, reason: renewing,
		},
		"if the clock was set back, expect another of the same CA": {
			leaf: signed(current, now.Add(leafBackdate+time.Second)), signing: current, published: trusting(current), want: current, reason: setBack,
		},
		"if the clock was set back by less than the backdating, expect the leaf to stay": {
			leaf: signed(current, now.Add(leafBackdate)), signing: current, published: trusting(current),
		},
		"if the clock was set back and the Secret cannot be read, expect another of the CA in memory": {
			leaf: signed(current, now.Add(time.Hour)), want: current, reason: setBack,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := decideLeaf(leafObservation{
				now: now, leaf: test.leaf, secret: rotationState{signing: test.signing, next: test.next}, published: test.published,
			})
			assert.Equal(t, test.want.String(), d.signer.String())
			assert.Equal(t, test.reason, d.reason)
		})
	}
}

func TestSignLeaf(t *testing.T) {
	now := decisionTime()
	ca, err := newAuthority(now, caTTL)
	require.NoError(t, err)
	assert.Equal(t, now.Add(-time.Hour), ca.root.NotBefore, "clocks may be behind")
	tests := map[string]struct {
		at        time.Time
		notBefore time.Duration
		notAfter  time.Duration
		want      string
	}{
		"if the CA is young, expect the whole lifetime":               {at: now, notBefore: -leafBackdate, notAfter: leafTTL},
		"if the CA ends first, expect the leaf to end with it":        {at: now.Add(caTTL - 8*time.Minute), notBefore: -2 * time.Minute, notAfter: 8 * time.Minute},
		"if the CA has expired, expect an error that names that date": {at: now.Add(caTTL), want: "the CA " + ca.String() + " expired at 2026-06-02T00:00:00Z"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l, err := ca.signLeaf(Options{LeafTTL: leafTTL, DNSNames: []string{"isthmus.test"}}, test.at)
			if test.want != "" {
				assert.EqualError(t, err, test.want)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, l.Leaf.PublicKey, l.PrivateKey.(crypto.Signer).Public(), "the key belongs to the leaf")
			assert.Equal(t, elliptic.P256(), l.Leaf.PublicKey.(*ecdsa.PublicKey).Curve, "as the key of the authority")
			assert.Equal(t, test.at.Add(test.notBefore), l.Leaf.NotBefore)
			assert.Equal(t, test.at.Add(test.notAfter), l.Leaf.NotAfter)
			assert.True(t, l.renewAt().After(test.at), "a leaf that is due when it is signed would be signed in a loop")
		})
	}
}
