package publish_test

import (
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// bundleBelow is a bundle of the edge that an intermediate signed. The leaf lives a
// day.
func (m mesh) bundleBelow(intermediate *certtest.Pair, issued time.Duration) *certs.Bundle {
	m.t.Helper()
	leaf := intermediate.SPIFFELeaf(m.t, edge, certtest.Validity(after(issued-2*time.Minute), after(issued+24*time.Hour)))
	b, err := certs.New(certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM},
		certs.Want{ID: spiffeid.RequireFromString(edge), Roots: rootsOf(m), Now: after(issued)})
	require.NoError(m.t, err)
	return b
}

func TestRenewalFollowsTheFirstEndOfTheChain(t *testing.T) {
	const h = time.Hour
	m := newMesh(t)
	until := func(end time.Duration) *certtest.Pair {
		return m.root.Intermediate(t, certtest.Validity(start.Add(-h), after(end)))
	}
	short, next := until(2*h), until(4*h)
	secret := published(t, m.bundleBelow(short, 0), target(m), 0, nil)
	assert.Equal(t, after(2*h).UTC().Format(time.RFC3339), secret.Annotations["isthmus.dev/not-after"])
	assert.Equal(t, after(40*time.Minute).UTC().Format(time.RFC3339), secret.Annotations["isthmus.dev/renew-after"])

	now := after(40 * time.Minute)
	o := publish.Inspect(secret, target(m), now)
	require.Equal(t, publish.Good, o.State)
	assert.True(t, o.NeedsCertificate(now), "the leaf would be due after eight hours")
	assert.False(t, o.LabelsDiffer)

	d := publish.Decide(o, m.bundleBelow(short, 40*time.Minute), publish.WhenDue, now)
	assert.Equal(t, publish.CauseNoBetter, d.Cause, "a new leaf ends with the same intermediate")
	d = publish.Decide(o, m.bundleBelow(next, 40*time.Minute), publish.WhenDue, now)
	assert.Equal(t, publish.CauseDue, d.Cause)
	assert.Equal(t, now.Add((4*h-40*time.Minute)/3), d.RenewAfter, "a third of what the next chain leaves")

	late := 2*h - 59*time.Second
	o = publish.Inspect(secret, target(m), after(late))
	assert.Equal(t, publish.Bad, o.State)
	assert.ErrorContains(t, o.Err, `expired: intermediate "CN=test intermediate"`)
}

// Writers that know different roots see different ends of one certificate.
func TestWritersThatKnowDifferentRootsKeepTheAnnotation(t *testing.T) {
	const h = time.Hour
	leaving := certtest.NewAuthority(t, certtest.Validity(start.Add(-h), after(2*h)))
	renewed := leaving.CrossSign(t, leaving, certtest.Validity(start.Add(-h), after(1000*h)))
	m := mesh{t, leaving}
	knows := func(roots ...*certtest.Pair) publish.Target {
		to := target()
		for _, r := range roots {
			to.Roots = append(to.Roots, r.Certificate)
		}
		return to
	}
	b := m.bundle(0, 24*h)
	own, err := certs.New(certs.Material{Key: b.Key(), Chain: b.Chain(), Roots: renewed.CertificatePEM},
		certs.Want{ID: b.ID(), Roots: rootsOf(m), Now: start})
	require.NoError(t, err)
	for name, writer := range map[string]publish.Target{"leaving": knows(leaving), "both": knows(leaving, renewed)} {
		secret := published(t, b, writer, 0, nil)
		for reader, to := range map[string]publish.Target{"leaving": knows(leaving), "both": knows(leaving, renewed), "renewed": knows(renewed)} {
			o := publish.Inspect(secret, to, start)
			require.Equal(t, publish.Good, o.State)
			assert.False(t, o.LabelsDiffer, "written with %s, read with %s", name, reader)
			want := after(24 * h).UTC()
			if reader == "leaving" {
				want = after(2 * h).UTC()
			}
			assert.Equal(t, want, o.Bundle.NotAfter(), "the decision follows the roots that the reader knows")
		}
		d := publish.Decide(publish.Inspect(secret, knows(leaving), after(h)), own, publish.WhenDue, after(h))
		assert.NotEqual(t, publish.CauseDue, d.Cause, "the root that only the candidate brings along makes it live no longer")
		secret.Annotations["isthmus.dev/not-after"] = after(5 * h).UTC().Format(time.RFC3339)
		assert.True(t, publish.Inspect(secret, writer, start).LabelsDiffer, "an end that no root gives is corrected")
	}
}
