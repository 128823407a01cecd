package publish_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

// TestDecideForEveryStateAndCandidate crosses every state of a Secret with every
// kind of candidate and both rules. It also shows that a decision to write is
// final: once written, the same candidate leads to no further write.
func TestDecideForEveryStateAndCandidate(t *testing.T) {
	const h = time.Hour
	m, next, unknown, otherUnknown := newMesh(t), newMesh(t), newMesh(t), newMesh(t)
	current := m.bundle(0, 24*h)
	secret := func(change func(*corev1.Secret)) *corev1.Secret { return published(t, current, target(m), 0, change) }
	yes := true

	const none, same, longer, untrusted, expired = "none", "same", "longer", "untrusted", "expired"
	candidates := map[string]*certs.Bundle{
		none:      nil,
		same:      current,
		longer:    m.bundle(h, 48*h),
		untrusted: unknown.bundleFor(edge, 0, 48*h, m), // only its own root verifies it
		expired:   m.bundle(0, h/2),
	}
	// causes are those by WhenDue and by WhenNewer.
	type causes [2]publish.Cause
	both := func(c publish.Cause) causes { return causes{c, c} }
	all := func(c publish.Cause) map[string]causes {
		return map[string]causes{none: both(c), same: both(c), longer: both(c), untrusted: both(c), expired: both(c)}
	}
	written := []publish.Cause{
		publish.CauseAbsent, publish.CauseBad, publish.CauseDue, publish.CauseNewer, publish.CauseRoots, publish.CauseLabels,
	}
	notWritten := []publish.Cause{
		publish.CauseNotDue, publish.CauseNoBetter, publish.CauseNoCandidate, publish.CauseUntrusted, publish.CauseStale,
		publish.CauseInvalid, publish.CauseForeign, publish.CauseIdentity, publish.CauseImmutable,
	}
	seen := map[publish.Cause]bool{}

	for name, test := range map[string]struct {
		secret *corev1.Secret
		target publish.Target
		at     time.Duration
		state  publish.State
		expect map[string]causes
	}{
		"absent": {nil, target(m), h, publish.Absent, map[string]causes{
			none: both(publish.CauseNoCandidate), same: both(publish.CauseAbsent), longer: both(publish.CauseAbsent),
			untrusted: both(publish.CauseAbsent), expired: both(publish.CauseInvalid),
		}},
		"absent, and no root of the mesh is known": {nil, target(), h, publish.Absent, all(publish.CauseNoCandidate)},
		"good and not due": {secret(nil), target(m), h, publish.Good, map[string]causes{
			none: both(publish.CauseNotDue), same: both(publish.CauseNotDue), longer: {publish.CauseNotDue, publish.CauseNewer},
			untrusted: {publish.CauseNotDue, publish.CauseUntrusted}, expired: both(publish.CauseNotDue),
		}},
		"good and due": {secret(nil), target(m), 9 * h, publish.Good, map[string]causes{
			none: both(publish.CauseNoCandidate), same: both(publish.CauseNoBetter), longer: {publish.CauseDue, publish.CauseNewer},
			untrusted: both(publish.CauseUntrusted), expired: both(publish.CauseInvalid),
		}},
		"good and not due, a root is missing": {secret(nil), target(m, next), h, publish.Good, map[string]causes{
			none: both(publish.CauseRoots), same: both(publish.CauseRoots), longer: {publish.CauseRoots, publish.CauseNewer},
			untrusted: both(publish.CauseRoots), expired: both(publish.CauseRoots),
		}},
		"good and due, a root is missing": {secret(nil), target(m, next), 9 * h, publish.Good, map[string]causes{
			none: both(publish.CauseRoots), same: both(publish.CauseRoots), longer: {publish.CauseDue, publish.CauseNewer},
			untrusted: both(publish.CauseRoots), expired: both(publish.CauseRoots),
		}},
		"good and not due, an annotation is wrong": {secret(func(s *corev1.Secret) { s.Annotations["isthmus.dev/spiffe-id"] = other }), target(m), h, publish.Good, map[string]causes{
			none: both(publish.CauseLabels), same: both(publish.CauseLabels), longer: {publish.CauseLabels, publish.CauseNewer},
			untrusted: both(publish.CauseLabels), expired: both(publish.CauseLabels),
		}},
		"bad, torn": {secret(func(s *corev1.Secret) { s.Data["tls.key"] = nil }), target(m), h, publish.Bad, map[string]causes{
			none: both(publish.CauseNoCandidate), same: both(publish.CauseBad), longer: both(publish.CauseBad),
			untrusted: both(publish.CauseBad), expired: both(publish.CauseInvalid),
		}},
		"bad, not valid yet": {published(t, m.bundle(5*h, 29*h), target(m), 5*h, nil), target(m), h, publish.Bad, map[string]causes{
			none: both(publish.CauseNoCandidate), same: both(publish.CauseStale), longer: both(publish.CauseBad),
			untrusted: both(publish.CauseBad), expired: both(publish.CauseInvalid),
		}},
		"bad, of another unknown root": {published(t, otherUnknown.bundle(0, 24*h), target(otherUnknown), 0, nil), target(m), h, publish.Bad, map[string]causes{
			none: both(publish.CauseNoCandidate), same: both(publish.CauseBad), longer: both(publish.CauseBad),
			untrusted: both(publish.CauseUntrusted), expired: both(publish.CauseInvalid),
		}},
		"bad, of the candidate's unknown root": {published(t, unknown.bundle(0, 24*h), target(unknown), 0, nil), target(m), 9 * h, publish.Bad, map[string]causes{
			none: both(publish.CauseNoCandidate), same: both(publish.CauseBad), longer: both(publish.CauseBad),
			untrusted: {publish.CauseDue, publish.CauseNewer}, expired: both(publish.CauseInvalid),
		}},
		"foreign": {secret(func(s *corev1.Secret) { s.Labels = nil }), target(m), 9 * h, publish.Foreign, all(publish.CauseForeign)},
		"of another identity": {
			published(t, m.bundleFor(other, 0, 24*h, m), target(m), 0, nil), target(m), 9 * h, publish.OtherIdentity, all(publish.CauseIdentity),
		},
		"immutable": {secret(func(s *corev1.Secret) { s.Immutable = &yes }), target(m), 9 * h, publish.Immutable, all(publish.CauseImmutable)},
	} {
		for kind, candidate := range candidates {
			for rule, cause := range test.expect[kind] {
				t.Run(name+", candidate "+kind+", rule "+[]string{"when due", "when newer"}[rule], func(t *testing.T) {
					seen[cause] = true
					now := after(test.at)
					o := publish.Inspect(test.secret, test.target, now)
					require.Equal(t, test.state, o.State)
					got := publish.Decide(o, candidate, publish.Rule(rule), now)
					assert.Equal(t, cause, got.Cause)
					assert.Equal(t, slices.Contains(written, cause), got.Write)
					assert.Equal(t, got.Write, got.Bundle != nil)
					assert.Equal(t, got.Write, !got.RenewAfter.IsZero())
					if !got.Write {
						return
					}
					s := &store{secret: test.secret.DeepCopy(), version: 10}
					out, err := at(s, test.at).Publish(t.Context(), test.target, candidate, publish.Rule(rule))
					require.NoError(t, err)
					assert.Equal(t, publish.Published, out.Result)
					out, _ = at(s, test.at).Publish(t.Context(), test.target, candidate, publish.Rule(rule))
					assert.NotEqual(t, publish.Published, out.Result, out.Cause)
					assert.Len(t, s.applies, 1)
				})
			}
		}
	}
	assert.ElementsMatch(t, slices.Concat(written, notWritten), slices.Collect(maps.Keys(seen)), "every cause is covered")
}
