package serving

import (
	"crypto/x509"
	"strings"
	"time"
)

// observation is everything that a decision about the Secret depends on.
type observation struct {
	now    time.Time
	secret parsedSecret
	// published is what API servers trust, by both configurations.
	published configurationView
	// lastMismatch is when this Rotator last saw a configuration without the whole
	// bundle; zero if it never did.
	lastMismatch time.Time
	// last is the last undamaged state that this Rotator saw; zero before the first.
	last rotationState
}

// decision is a state to write, when reason is set. Otherwise the Secret stays, and
// due is when to decide again; zero when only a change can bring a new decision.
type decision struct {
	state  rotationState
	reason string
	due    time.Time
}

// decide returns what to do with the Secret. It reads no clock and does no I/O.
// delay is how long the two waits of a rotation last each, and generate returns an
// authority that is valid from the given time.
func decide(o observation, delay time.Duration, generate func(now time.Time) (*authority, error)) (decision, error) {
	if problems := o.problems(); len(problems) > 0 {
		repaired, err := repair(o, generate)
		if repaired.phase == stable && o.secret.isEmpty {
			return decision{state: repaired, reason: "created the first CA"}, err
		}
		return decision{state: repaired, reason: "repaired: " + strings.Join(problems, "; ")}, err
	}

	s := o.secret.rotationState
	if implied := s.impliedPhase(); implied != s.phase || s.since.IsZero() || s.since.After(o.now.Add(delay)) {
		// To start the wait again is safe.
		s.phase, s.since = implied, o.now
		return decision{state: s, reason: "the phase annotations did not fit the certificates: the phase starts again"}, nil
	}

	trusted := o.published.trusts(s.bundle...)
	waitEnd := laterOf(s.since, o.lastMismatch).Add(delay)
	switch s.phase {
	case stable:
		return decideStable(s, o.now, generate)
	case announcing:
		if s.signing == nil && len(s.retiring().usable(o.now)) == 0 {
			return promote(s, o.now, "no leaf can be in use: the next CA signs at once"), nil
		}
		if trusted {
			s.phase, s.since = announced, o.now
			return decision{state: s, reason: "the configurations trust the next CA: waiting until every API server does"}, nil
		}
	case announced:
		if trusted && !o.now.Before(waitEnd) {
			return promote(s, o.now, "every API server trusts the next CA: it signs from now on"), nil
		}
		return decision{state: s, due: waitEnd}, nil
	case promoted:
		if trusted && !o.now.Before(waitEnd) {
			removed := s.retiring()
			s.bundle, s.phase, s.since = s.bundle.difference(removed...), stable, o.now
			return decision{state: s, reason: "removed from the bundle: " + removed.String()}, nil
		}
		return decision{state: s, due: waitEnd}, nil
	}
	return decision{state: s}, nil
}

// decideStable begins a rotation when it is due.
func decideStable(s rotationState, now time.Time, generate func(time.Time) (*authority, error)) (decision, error) {
	if now.Before(s.signing.renewAt()) {
		return decision{state: s, due: s.signing.renewAt()}, nil
	}
	next, err := generate(now)
	if err != nil {
		return decision{}, err
	}
	s.next, s.bundle = next, s.bundle.union(next.root)
	s.phase, s.since = announcing, now
	return decision{state: s, reason: "two thirds of the CA's lifetime are over: announced the next CA " + next.String()}, nil
}

// promote makes the next authority sign. The bundle stays, because leaves of the old
// authority are in use.
func promote(s rotationState, now time.Time, reason string) decision {
	s.signing, s.next = s.next, nil
	s.phase, s.since = s.impliedPhase(), now
	return decision{state: s, reason: reason}
}

// problems says why the rotation cannot continue from the Secret as it is.
func (o observation) problems() []string {
	if len(o.secret.problems) > 0 {
		return o.secret.problems
	}
	switch {
	case o.isReplaced():
		return []string{BundleKey + " lost the CA " + o.last.signing.String() + " in one step, while its leaves are in use"}
	case o.mayBeReplaced():
		return []string{"the configurations trust other CAs than " + o.secret.signing.String() + ", and leaves of those may be in use"}
	}
	return nil
}

// isReplaced reports whether the authority was replaced by hand in one step: the bundle
// lacks the root of the leaves in use, and the configurations do not trust the new
// root yet. If they do, it is too late to go back, and replicas only have to sign.
func (o observation) isReplaced() bool {
	signing := o.last.signing
	if signing == nil || o.now.After(signing.root.NotAfter) || o.secret.bundle.contains(signing.root) {
		return false
	}
	return o.secret.signing == nil || !o.published.trusts(o.secret.signing.root)
}

// mayBeReplaced reports whether the authority may have been replaced by hand while
// this Rotator was not running: replicas may have served throughout. If none has, the
// wait that follows does no harm.
func (o observation) mayBeReplaced() bool {
	if o.last.signing != nil || o.secret.signing == nil {
		return false
	}
	trusted := o.published.roots()
	return len(trusted.usable(o.now)) > 0 && !trusted.contains(o.secret.signing.root)
}

// repair keeps what is undamaged, and every root that a leaf in use may need. An
// authority that API servers do not trust yet becomes the next one.
func repair(o observation, generate func(time.Time) (*authority, error)) (rotationState, error) {
	inUse := o.secret.bundle.union(o.secret.rootsWithoutKey...).union(o.last.bundle...).union(o.published.roots()...)
	s := rotationState{signing: o.secret.signing, next: o.secret.next, bundle: inUse.usable(o.now), since: o.now}

	if s.signing != nil && !o.isTrusted(s.signing.root) {
		s.signing, s.next = nil, s.signing
	}
	if s.signing == nil && s.next == nil {
		generated, err := generate(o.now)
		if err != nil {
			return rotationState{}, err
		}
		s.next = generated
	}
	if s.next != nil {
		s.bundle = s.bundle.union(s.next.root)
		if s.signing == nil && len(s.retiring()) == 0 {
			s.signing, s.next = s.next, nil
		}
	}
	if s.signing != nil {
		s.bundle = s.bundle.union(s.signing.root)
	}
	s.phase = s.impliedPhase()
	return s, nil
}

// isTrusted reports whether API servers trust root already.
func (o observation) isTrusted(root *x509.Certificate) bool {
	return o.last.bundle.contains(root) || o.published.trusts(root)
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
