package serving

import (
	"crypto/x509"
	"strings"
	"time"
)

// planner decides the next content of the Secret. It reads no clock and does no I/O.
type planner struct {
	delay time.Duration
	make  func(now time.Time) (*pair, error)
}

// observation is all that a decision rests on.
type observation struct {
	now time.Time
	// secret is what the Secret says.
	secret reading
	// published is what the configuration carries.
	published view
	// publishedSince is when this Keeper last saw the configuration carry
	// anything but the bundle; zero if it never did.
	publishedSince time.Time
	// last is the last whole state that this Keeper saw; zero before it saw one.
	last state
}

// decision is a state to write, when reason is set, or else a time to look again.
type decision struct {
	state  state
	reason string
	due    time.Time
}

func (p planner) decide(o observation) (decision, error) {
	if problems := o.problems(); len(problems) > 0 {
		healed, err := p.heal(o)
		if healed.phase == stable && o.secret.empty {
			return decision{state: healed, reason: "made the first CA"}, err
		}
		return decision{state: healed, reason: "mended: " + strings.Join(problems, "; ")}, err
	}

	s := o.secret.state
	if derived := s.derivePhase(); derived != s.phase || s.since.IsZero() || s.since.After(o.now.Add(p.delay)) {
		// Only the wait is lost by starting it again.
		s.phase, s.since = derived, o.now
		return decision{state: s, reason: "the phase was not what the certificates say, its wait starts again"}, nil
	}

	carried := o.published.carriesAll(s.bundle) == nil
	waited := laterOf(s.since, o.publishedSince).Add(p.delay)
	switch s.phase {
	case stable:
		return p.fromStable(s, o.now)
	case announcing:
		if s.signing == nil && len(s.retiring().usable(o.now)) == 0 {
			return p.promote(s, o.now, "no leaf can be in use, the next CA signs at once"), nil
		}
		if carried {
			s.phase, s.since = announced, o.now
			return decision{state: s, reason: "the configuration carries the next CA, waiting for every API server to know it"}, nil
		}
	case announced:
		if carried && !o.now.Before(waited) {
			return p.promote(s, o.now, "every API server knows the next CA, it signs from now on"), nil
		}
		return decision{state: s, due: waited}, nil
	case promoted:
		if carried && !o.now.Before(waited) {
			dropped := s.retiring()
			s.bundle, s.phase, s.since = s.bundle.without(dropped...), stable, o.now
			return decision{state: s, reason: "dropped from the bundle: " + dropped.String()}, nil
		}
		return decision{state: s, due: waited}, nil
	}
	return decision{state: s}, nil
}

func (p planner) fromStable(s state, now time.Time) (decision, error) {
	if now.Before(s.signing.renewAt()) {
		return decision{state: s, due: s.signing.renewAt()}, nil
	}
	next, err := p.make(now)
	if err != nil {
		return decision{}, err
	}
	s.next, s.bundle = next, s.bundle.with(next.root)
	s.phase, s.since = announcing, now
	return decision{state: s, reason: "two thirds of the CA's life are over, announced the next CA " + next.String()}, nil
}

// promote leaves the bundle as it is: leaves of the old authority are in use.
func (p planner) promote(s state, now time.Time, reason string) decision {
	s.signing, s.next = s.next, nil
	s.phase, s.since = s.derivePhase(), now
	return decision{state: s, reason: reason}
}

// derivePhase is the phase that the certificates imply; only announced is more
// than they can tell.
func (s state) derivePhase() phase {
	switch {
	case s.next != nil && s.phase == announced:
		return announced
	case s.next != nil:
		return announcing
	case len(s.retiring()) > 0:
		return promoted
	default:
		return stable
	}
}

// problems says why the Secret cannot be gone on from.
func (o observation) problems() []string {
	problems := o.secret.damaged
	if len(problems) > 0 {
		return problems
	}
	switch {
	case o.isSwapped():
		return []string{BundleKey + " lost the CA " + o.last.signing.String() + ", whose leaves are in use, in one step"}
	case o.mayBeSwapped():
		return []string{"the configuration knows other CAs than " + o.secret.signing.String() + ", whose leaves may be in use"}
	}
	return nil
}

// isSwapped recognises another authority that was put in by hand in one step: the
// root that leaves were signed with is gone, and the configuration does not carry
// the new one yet. If it does, we are late, and the replicas have only to sign anew.
func (o observation) isSwapped() bool {
	signing := o.last.signing
	if signing == nil || o.now.After(signing.root.NotAfter) || o.secret.bundle.has(signing.root) {
		return false
	}
	return o.secret.signing == nil || o.published.carriesAll(roots{o.secret.signing.root}) != nil
}

// mayBeSwapped suspects the same where nothing is remembered: the replicas may
// have lived through what a Keeper that has just started has not seen. The wait
// costs nothing when it is not so.
func (o observation) mayBeSwapped() bool {
	if o.last.signing != nil || o.secret.signing == nil {
		return false
	}
	carried := o.published.roots()
	return len(carried.usable(o.now)) > 0 && !carried.has(o.secret.signing.root)
}

// heal keeps what is whole and every root that a leaf may still be verified by. An
// authority that the API servers have not heard of starts as the next one.
func (p planner) heal(o observation) (state, error) {
	inUse := o.secret.bundle.with(o.secret.stray...).with(o.last.bundle...).with(o.published.roots()...)
	s := state{signing: o.secret.signing, next: o.secret.next, bundle: inUse.usable(o.now), since: o.now}

	if s.signing != nil && !o.isTrusted(s.signing.root) {
		s.signing, s.next = nil, s.signing
	}
	if s.signing == nil && s.next == nil {
		made, err := p.make(o.now)
		if err != nil {
			return state{}, err
		}
		s.next = made
	}
	if s.next != nil {
		s.bundle = s.bundle.with(s.next.root)
		if s.signing == nil && len(s.retiring()) == 0 {
			s.signing, s.next = s.next, nil
		}
	}
	if s.signing != nil {
		s.bundle = s.bundle.with(s.signing.root)
	}
	s.phase = s.derivePhase()
	return s, nil
}

// isTrusted reports whether API servers verify leaves by root already.
func (o observation) isTrusted(root *x509.Certificate) bool {
	return o.last.bundle.has(root) || o.published.found && o.published.carriesAll(roots{root}) == nil
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
