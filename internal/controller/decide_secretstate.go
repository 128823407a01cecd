package controller

import (
	"time"
	"unique"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

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
