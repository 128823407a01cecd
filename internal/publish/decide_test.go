package publish_test

import (
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

func TestDecideWhetherToWriteTheCandidate(t *testing.T) {
	const h = time.Hour
	m, strange, stranger := newMesh(t), newMesh(t), newMesh(t)
	current := m.bundle(0, 24*h)
	secret := func(change func(*corev1.Secret)) *corev1.Secret { return published(t, current, target(m), 0, change) }
	torn := secret(func(s *corev1.Secret) { s.Data["tls.key"] = []byte("x") })
	// Its own root verifies it, and no root of the mesh does.
	ownRoot := strange.bundleFor(edge, 0, 48*h, m)
	none := time.Duration(-1)

	for name, test := range map[string]struct {
		secret    *corev1.Secret
		candidate *certs.Bundle
		rule      publish.Rule
		at        time.Duration
		cause     publish.Cause
		renew     time.Duration // of the bundle that is written; none without a write
		nextCheck time.Duration
	}{
		"if there is none, expect a write":                  {nil, current, publish.WhenDue, 3 * h, publish.CauseAbsent, 10 * h, 10 * h},
		"if there is none and no candidate, expect nothing": {nil, nil, publish.WhenDue, 0, publish.CauseNoCandidate, none, none},
		"if it is torn, expect a write":                     {torn, m.bundle(0, 12*h), publish.WhenDue, 3 * h, publish.CauseBad, 6 * h, 6 * h},
		"if it has expired, expect a write":                 {secret(nil), m.bundle(0, 30*h), publish.WhenDue, 24 * h, publish.CauseBad, 20 * h, 20 * h},

		"if it is not due, expect nothing, however long the candidate lives": {secret(nil), m.bundle(0, 48*h), publish.WhenDue, 8*h - 1, publish.CauseNotDue, none, 8 * h},
		"if it is due and the candidate lives longer, expect a write":        {secret(nil), m.bundle(0, 48*h), publish.WhenDue, 9 * h, publish.CauseDue, 22 * h, 22 * h},
		"if the rest is a tenth longer, expect a write":                      {secret(nil), m.bundle(0, 25*h), publish.WhenDue, 14 * h, publish.CauseDue, 16*h + 40*time.Minute, 16*h + 40*time.Minute},
		"if it is a second less than that, expect nothing until it is":       {secret(nil), m.bundle(0, 25*h-time.Second), publish.WhenDue, 14 * h, publish.CauseNoBetter, none, 14*h + 10*time.Second},
		"if the candidate is the same, expect nothing until its end":         {secret(nil), current, publish.WhenDue, 9 * h, publish.CauseNoBetter, none, 24*h - time.Minute},
		"if the candidate is older, expect nothing until the end":            {secret(nil), m.bundle(-h, 23*h), publish.WhenDue, 9 * h, publish.CauseNoBetter, none, 24*h - time.Minute},
		"if it is due and there is no candidate, expect nothing":             {secret(nil), nil, publish.WhenDue, 9 * h, publish.CauseNoCandidate, none, 24*h - time.Minute},
		"if the candidate has expired, expect nothing":                       {secret(nil), m.bundle(0, 5*h), publish.WhenDue, 6 * h, publish.CauseNotDue, none, 8 * h},

		"if the rule is newer and it lives longer, expect a write": {secret(nil), m.bundle(h, 25*h), publish.WhenNewer, h, publish.CauseNewer, 9 * h, 9 * h},
		"if it lives as long and differs, expect a write":          {secret(nil), m.bundle(0, 24*h), publish.WhenNewer, 0, publish.CauseNewer, 8 * h, 8 * h},
		"if it is the same, expect nothing":                        {secret(nil), current, publish.WhenNewer, 0, publish.CauseNotDue, none, 8 * h},
		"if it was issued later for less, expect a write":          {secret(nil), m.bundle(h, 20*h), publish.WhenNewer, h, publish.CauseNewer, 7*h + 20*time.Minute, 7*h + 20*time.Minute},
		"if it is older, expect nothing":                           {secret(nil), m.bundle(-h, 20*h), publish.WhenNewer, h, publish.CauseNotDue, none, 8 * h},
		"if it is older and due, expect nothing":                   {secret(nil), m.bundle(-h, 20*h), publish.WhenNewer, 9 * h, publish.CauseNoBetter, none, 24*h - time.Minute},

		"if the mesh does not know the candidate's root, expect nothing while there is a good one": {secret(nil), ownRoot, publish.WhenDue, 9 * h, publish.CauseUntrusted, none, 24*h - time.Minute},
		"if it does not and the rule is newer, expect nothing either":                              {secret(nil), ownRoot, publish.WhenNewer, h, publish.CauseUntrusted, none, 8 * h},
		"if there is no Secret, expect even that candidate":                                        {nil, ownRoot, publish.WhenDue, 0, publish.CauseAbsent, 16 * h, 16 * h},
		"if two unknown roots differ, expect no endless overwriting": {
			published(t, stranger.bundle(0, 24*h), target(stranger), 0, nil), ownRoot, publish.WhenDue, 9 * h, publish.CauseUntrusted, none, none,
		},
		"if both have the same unknown root, expect the usual rules": {
			published(t, strange.bundle(0, 24*h), target(strange), 0, nil), ownRoot, publish.WhenDue, 0, publish.CauseNotDue, none, 8 * h,
		},
		"if both have the same unknown root and it is due, expect a write": {
			published(t, strange.bundle(0, 24*h), target(strange), 0, nil), ownRoot, publish.WhenDue, 9 * h, publish.CauseDue, 22 * h, 22 * h,
		},
		"if it holds another mesh's bundle, expect a write": {
			published(t, strange.bundle(0, 24*h), target(strange), 0, nil), current, publish.WhenDue, 0, publish.CauseBad, 8 * h, 8 * h,
		},
		"if our clock is behind, expect no write of an older bundle": {
			published(t, m.bundle(5*h, 29*h), target(m), 5*h, nil), current, publish.WhenDue, h, publish.CauseStale, none, 5*h - 2*time.Minute,
		},
		"if a clock was ahead, expect a write of what lives longer": {
			published(t, m.bundle(5*h, 29*h), target(m), 5*h, nil), m.bundle(0, 30*h), publish.WhenDue, 3 * h, publish.CauseBad, 12 * h, 12 * h,
		},

		"if a label is gone, expect it back": {secret(func(s *corev1.Secret) {
			s.Labels, s.Annotations["isthmus.dev/adopt"] = nil, "true"
		}), nil, publish.WhenDue, 3 * h, publish.CauseLabels, 8 * h, 8 * h},
		"if an annotation is wrong, expect it corrected": {secret(func(s *corev1.Secret) {
			s.Annotations["isthmus.dev/not-after"] = "2099-01-01T00:00:00Z"
		}), m.bundle(0, 20*h), publish.WhenDue, 3 * h, publish.CauseLabels, 8 * h, 8 * h},
	} {
		t.Run(name, func(t *testing.T) {
			got := publish.Decide(publish.Inspect(test.secret, target(m), after(test.at)), test.candidate, test.rule, after(test.at))
			assert.Equal(t, test.cause, got.Cause)
			assert.Equal(t, test.renew != none, got.Write)
			assert.Equal(t, got.Write, got.Bundle != nil)
			if got.Write {
				assert.Equal(t, after(test.renew).UTC(), got.RenewAfter.UTC())
			}
			if test.nextCheck == none {
				assert.Zero(t, got.NextCheck)
			} else {
				assert.Equal(t, after(test.nextCheck).UTC(), got.NextCheck.UTC(), "next check")
			}
			assert.NoError(t, got.Err)
		})
	}
}

func TestDecideRefreshesRoots(t *testing.T) {
	old, next, third := newMesh(t), newMesh(t), newMesh(t)
	leaf := old.bundle(0, 24*time.Hour)
	young := old.bundle(time.Hour, 25*time.Hour)
	before, both := published(t, leaf, target(old), 0, nil), published(t, leaf, target(old, next), 0, nil)
	for name, test := range map[string]struct {
		secret    *corev1.Secret
		target    publish.Target
		candidate *certs.Bundle
		rule      publish.Rule
		cause     publish.Cause
		roots     int
	}{
		"if a root is new, expect it beside the old":                     {before, target(old, next), leaf, publish.WhenDue, publish.CauseRoots, 2},
		"if a root is new and there is no candidate, expect it":          {before, target(old, next), nil, publish.WhenDue, publish.CauseRoots, 2},
		"if a root is new and another leaf too, expect the current leaf": {before, target(old, next), young, publish.WhenDue, publish.CauseRoots, 2},
		"if the rule is newer, expect both in one write":                 {before, target(old, next), young, publish.WhenNewer, publish.CauseNewer, 2},
		"if nothing has changed, expect nothing":                         {both, target(next, old), leaf, publish.WhenDue, publish.CauseNotDue, 0},
		"if a root has left, expect it gone":                             {both, target(old), leaf, publish.WhenNewer, publish.CauseRoots, 1},
		"if one of many publishers does not know a root, expect that it stays": {
			both, target(old), leaf, publish.WhenDue, publish.CauseNotDue, 0,
		},
		"if one of many publishers knows another root, expect it beside the others": {
			both, target(old, third), leaf, publish.WhenDue, publish.CauseRoots, 3,
		},
		"if it holds a root of the candidate's own, expect that it stays": {
			both, target(old), old.bundleFor(edge, 0, 24*time.Hour, old, next), publish.WhenDue, publish.CauseNotDue, 0,
		},
		"if ca.crt is damaged, expect it repaired": {published(t, leaf, target(old), 0, func(s *corev1.Secret) {
			s.Data["ca.crt"] = []byte("x")
		}), target(old), leaf, publish.WhenDue, publish.CauseRoots, 1},
		"if root-cert.pem is gone, expect it back": {published(t, leaf, target(old), 0, func(s *corev1.Secret) {
			delete(s.Data, "root-cert.pem")
		}), target(old), nil, publish.WhenDue, publish.CauseRoots, 1},
	} {
		t.Run(name, func(t *testing.T) {
			at := after(time.Hour)
			got := publish.Decide(publish.Inspect(test.secret, test.target, at), test.candidate, test.rule, at)
			assert.Equal(t, test.cause, got.Cause)
			assert.Equal(t, test.roots > 0, got.Write)
			if test.roots == 0 {
				return
			}
			require.NotNil(t, got.Bundle)
			roots, err := certs.ParseCertificates(got.Bundle.Roots())
			require.NoError(t, err)
			assert.Len(t, roots, test.roots)
			if test.cause == publish.CauseRoots {
				assert.Equal(t, leaf.Serial(), got.Bundle.Serial(), "the leaf stays")
				assert.Equal(t, after(8*time.Hour).UTC(), got.RenewAfter.UTC(), "so its renewal point stays")
			}
		})
	}
}

// A Secret that is due keeps waiting for a better candidate when only its roots are
// written: the next check is never in the past.
func TestNextCheckAfterRootsAreIsNotPast(t *testing.T) {
	old, next := newMesh(t), newMesh(t)
	leaf := old.bundle(0, 24*time.Hour)
	before := published(t, leaf, target(old), 0, nil)
	for name, test := range map[string]struct {
		candidate *certs.Bundle
		at, want  time.Duration
	}{
		"if it is not due, expect the renewal point":                      {leaf, time.Hour, 8 * time.Hour},
		"if it is due and there is no candidate, expect its end":          {nil, 9 * time.Hour, 24*time.Hour - time.Minute},
		"if it is due and the candidate is the same, expect its end":      {leaf, 9 * time.Hour, 24*time.Hour - time.Minute},
		"if the candidate lives longer soon enough, expect the time then": {old.bundle(0, 25*time.Hour), 9 * time.Hour, 14 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			now := after(test.at)
			got := publish.Decide(publish.Inspect(before, target(old, next), now), test.candidate, publish.WhenDue, now)
			require.Equal(t, publish.CauseRoots, got.Cause)
			assert.Equal(t, after(test.want).UTC(), got.NextCheck.UTC())
		})
	}
}

// The same service account in another trust domain is the same owner.
func TestInspectAfterAMigrationOfTheTrustDomain(t *testing.T) {
	m := newMesh(t)
	current := published(t, m.bundle(0, 24*time.Hour), target(m), 0, nil)
	for id, want := range map[string]publish.State{
		"spiffe://new.example/ns/edge/sa/emissary": publish.Bad,
		"spiffe://new.example/ns/edge/sa/other":    publish.OtherIdentity,
		"spiffe://cluster.local/ns/edge/sa/other":  publish.OtherIdentity,
	} {
		moved := target(m)
		moved.ID = spiffeid.RequireFromString(id)
		o := publish.Inspect(current, moved, after(time.Hour))
		assert.Equal(t, want, o.State, id)
		if want == publish.Bad {
			d := publish.Decide(o, m.bundleFor(id, time.Hour, 25*time.Hour, m), publish.WhenNewer, after(time.Hour))
			assert.Equal(t, publish.CauseBad, d.Cause, "it is replaced at once")
		}
	}
}

// Publishers of two trust domains leave each other's certificate until it is due. Roots
// are written meanwhile, and the certificate keeps its identity.
func TestPublishersOfTwoTrustDomains(t *testing.T) {
	const moved = "spiffe://new.example/ns/edge/sa/emissary"
	m, next := newMesh(t), newMesh(t)
	s, now := &store{}, start
	clock := func() time.Time { return now }
	present := target(m)
	present.ID = spiffeid.RequireFromString(moved)
	former, replaced := m.bundle(0, 24*time.Hour), m.bundleFor(moved, 0, 24*time.Hour, m)
	p, q := &publish.Publisher{Secrets: s, Now: clock}, &publish.Publisher{Secrets: s, Now: clock}
	look := func(roots ...mesh) {
		for range 5 {
			old, recent := target(roots...), present
			recent.Roots = old.Roots
			_, err := p.Publish(t.Context(), old, former, publish.WhenDue)
			require.NoError(t, err)
			_, err = q.Publish(t.Context(), recent, replaced, publish.WhenDue)
			require.NoError(t, err)
			now = now.Add(time.Minute)
		}
	}
	look(m)
	assert.Len(t, s.applies, 1, "the first one's")
	look(m, next)
	assert.Len(t, s.applies, 2, "the new root")
	assert.Equal(t, edge, s.secret.Annotations["isthmus.dev/spiffe-id"])
	assert.Equal(t, former.Serial(), s.secret.Annotations["isthmus.dev/serial"])
	assert.Equal(t, after(8*time.Hour).UTC().Format(time.RFC3339), s.secret.Annotations["isthmus.dev/renew-after"])

	now, replaced = start.Add(9*time.Hour), m.bundleFor(moved, 9*time.Hour, 33*time.Hour, m)
	look(m, next)
	assert.Len(t, s.applies, 3, "the renewal")
	assert.Equal(t, moved, s.secret.Annotations["isthmus.dev/spiffe-id"])
}

func TestDecideRefusesWithAnError(t *testing.T) {
	m := newMesh(t)
	yes := true
	b, day := m.bundle(0, 48*time.Hour), 24*time.Hour
	for name, test := range map[string]struct {
		secret *corev1.Secret
		target publish.Target
		at     time.Duration
		cause  publish.Cause
		err    string
		next   time.Duration
	}{
		"if it is foreign, expect that":   {published(t, b, target(m), 0, func(s *corev1.Secret) { s.Labels = nil }), target(m), 0, publish.CauseForeign, "is not managed by Isthmus", 0},
		"if it is immutable, expect that": {published(t, b, target(m), 0, func(s *corev1.Secret) { s.Immutable = &yes }), target(m), 0, publish.CauseImmutable, "is immutable", 0},
		"if it holds another identity, expect a check at its end": {
			published(t, m.bundleFor(other, 0, day, m), target(m), 0, nil), target(m), 23 * time.Hour, publish.CauseIdentity, "holds a certificate of " + other, day - time.Minute,
		},
		"if no root is known, expect that":                   {nil, target(), 0, publish.CauseNoCandidate, "no root certificate of the mesh is known", 0},
		"if the candidate has expired, expect its rejection": {nil, target(m), 49 * time.Hour, publish.CauseInvalid, "secret edge/istio-certs: the candidate: expired: ", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := publish.Decide(publish.Inspect(test.secret, test.target, after(test.at)), b, publish.WhenNewer, after(test.at))
			assert.False(t, got.Write)
			assert.Equal(t, test.cause, got.Cause)
			assert.ErrorContains(t, got.Err, test.err)
			if test.next > 0 {
				assert.Equal(t, after(test.next).UTC(), got.NextCheck.UTC())
			}
		})
	}
	elsewhere := m.bundleFor(other, 0, day, m)
	got := publish.Decide(publish.Inspect(nil, target(m), start), elsewhere, publish.WhenNewer, start)
	assert.False(t, got.Write, "another edge's bundle is never written")
	assert.ErrorContains(t, got.Err, "the candidate: wrong-identity: ")
}
