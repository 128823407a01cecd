package controller

import (
	"maps"
	"time"
	"unique"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// namespaceState is what is remembered of an opted-in namespace between two
// reconciliations. It is not persisted: a new leader observes everything again.
type namespaceState struct {
	name string
	// claims are those of the pods, by their UID. idle are the pods that were read
	// and claim nothing.
	claims map[types.UID]claim
	idle   map[types.UID]bool
	// scanned is when the pods were last listed, and scanBasis the labels and
	// annotations of the namespace by which they were classified.
	scanned   time.Time
	scanBasis string
	// rescanned is true from the second scan on.
	rescanned bool
	// stale are the pods that were stale when they were read, by their UID. missing
	// counts the pods without an injection at the last scan, by mode.
	stale   map[types.UID]StalePod
	missing map[policy.Mode]int
	// secrets are the Secrets that are checked, by name.
	secrets map[string]*secretState
	// applied is the content that is known to be applied to objects other than the
	// edges' Secrets, by name; empty content means that Isthmus manages no such
	// object.
	applied map[string]string
	// events are recorded once.
	events events.Once
}

func newNamespaceState(name string, once events.Once) *namespaceState {
	return &namespaceState{name: name, claims: map[types.UID]claim{}, secrets: map[string]*secretState{}, applied: map[string]string{}, events: once}
}

// forgetApplied makes the next reconciliation check the objects other than the
// edges' Secrets again, and forgets the Events of pods that are gone.
func (s *namespaceState) forgetApplied() {
	maps.DeleteFunc(s.applied, func(_, content string) bool { return content != "" })
	names := make(map[string]bool, len(s.claims))
	for _, c := range s.claims {
		names[c.pod.Name] = true
		if c.owner != nil {
			names[c.owner.Name] = true
		}
	}
	s.events.DeleteFunc(func(kind, name string) bool { return !names[name] && kind != "Secret" })
}

// secretState is what is remembered of one Secret between two checks. There are
// thousands of them, so a secretState holds no Secret and, except for pending, no
// certificate.
type secretState struct {
	// pending was issued and could not be published yet. It is used instead of a
	// new one until pendingUntil, half of its life, to spare the CA.
	pending      *certs.Bundle
	pendingUntil time.Time
	// pendingSince is when the source first reported the certificate as pending; zero
	// when it is not pending.
	pendingSince time.Time
	// state, problem and renewAfter describe the Secret at the last check.
	state      publish.State
	problem    string
	renewAfter time.Time
	// roots are those of the last good bundle, as PEM: the same for all Secrets.
	roots unique.Handle[string]
	// target is the holder's, without roots. Its name is empty before the first
	// check.
	target publish.Target
	// due is when the bundle is to be replaced: renewAfter with jitter.
	due time.Time
}

// isKnown reports whether the Secret was checked before.
func (s secretState) isKnown() bool { return s.target.Name != "" }

// remember returns the state after a check.
func (s secretState) remember(t publish.Target, observation publish.Observation) secretState {
	t.Roots = nil
	s.target, s.state, s.problem, s.renewAfter = t, observation.State, "", observation.RenewAfter
	if observation.Err != nil {
		s.problem = observation.Err.Error()
	}
	if observation.State == publish.Good {
		s.roots = unique.Make(string(observation.Bundle.Roots()))
	}
	return s
}

// keepPending returns the state with a bundle that could not be published.
func (s secretState) keepPending(b *certs.Bundle, now time.Time) secretState {
	if b == nil || s.pending != nil && s.pending.Serial() == b.Serial() {
		return s
	}
	s.pending, s.pendingUntil = b, now.Add(b.NotAfter().Sub(now)/2)
	return s
}
