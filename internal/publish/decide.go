package publish

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// Decision says what to do with a Secret.
type Decision struct {
	// Write is true if the Secret is to be written, with Bundle in it.
	Write bool
	// Cause says why the Secret is written, or why it is not.
	Cause Cause
	// Bundle is what to write: the candidate, or the Secret's current key and
	// chain with other roots. Nil unless Write.
	Bundle *certs.Bundle
	// RenewAfter is when Bundle is due to be replaced. Zero unless Write.
	RenewAfter time.Time
	// Err says why the Secret must not be written or why the candidate is invalid.
	// Nil otherwise.
	Err error
	// NextCheck is when to decide again although nothing has changed. Zero when
	// only a change can lead to another decision.
	NextCheck time.Time
}

// keepsCertificate reports whether the Secret is written with the key and the chain
// that it has.
func (d Decision) keepsCertificate() bool { return d.Cause == CauseRoots || d.Cause == CauseLabels }

// Decide decides whether to write the candidate into the observed Secret. It is
// pure. A nil candidate means that there is none; then only roots, label and
// annotations may change.
//
// A valid bundle is replaced at its renewal point, by a candidate whose remaining
// life is at least a tenth longer. With rule WhenNewer it may be replaced earlier. So
// only one of many publishers writes, and never one whose bundle is old.
func Decide(o Observation, candidate *certs.Bundle, rule Rule, now time.Time) Decision {
	switch o.State {
	case Foreign:
		return Decision{Cause: CauseForeign, Err: o.Err}
	case Immutable:
		return Decision{Cause: CauseImmutable, Err: o.Err}
	case OtherIdentity:
		return Decision{Cause: CauseIdentity, Err: o.Err, NextCheck: o.conflictUntil}
	}
	if len(o.target.Roots) == 0 {
		return Decision{Cause: CauseNoCandidate, Err: fmt.Errorf("secret %s: %w", o.target, errNoRoots)}
	}
	c, err := o.validate(candidate, now)
	d := o.decideCandidate(c, rule, now)
	if d.Write {
		return d
	}
	if err != nil && d.Cause == CauseNoCandidate { // otherwise no candidate is needed
		d.Cause, d.Err = CauseInvalid, err
	}
	if cause := o.refreshCause(c, rule); cause != "" {
		if b, err := o.refreshedBundle(c, rule, now); err == nil {
			// The renewal point of the certificate does not move, and what waits for it or
			// for a better candidate goes on waiting.
			_, renew := o.keptBundle()
			return Decision{Write: true, Cause: cause, Bundle: b, RenewAfter: renew, NextCheck: d.NextCheck}
		}
	}
	return d
}

// candidate is a bundle that may be written, with what the decision needs to know
// of it.
type candidate struct {
	*certs.Bundle
	// trusted is true if the chain leads to a root of the mesh, and not only to
	// one that the bundle brings along.
	trusted bool
	// byMesh is the candidate with the mesh's roots alone if trusted, and otherwise the
	// candidate itself. Its end compares with that of an observed bundle, because the
	// end of a chain depends on the roots.
	byMesh *certs.Bundle
	roots  []*x509.Certificate
}

// validate checks a candidate against the target and the time: it was valid when
// it was made, perhaps for other roots. Without a candidate it returns nil and no
// error.
func (o Observation) validate(b *certs.Bundle, now time.Time) (*candidate, error) {
	if b == nil {
		return nil, nil // the candidate is optional
	}
	m := certs.Material{Key: b.Key(), Chain: b.Chain(), Roots: b.Roots()}
	want := certs.Want{ID: o.target.ID, Roots: o.target.Roots, Now: now}
	valid, err := certs.New(m, want)
	if err != nil {
		return nil, fmt.Errorf("secret %s: the candidate: %w", o.target, err)
	}
	c := &candidate{Bundle: valid, byMesh: valid}
	if c.roots, err = certs.ParseCertificates(valid.Roots()); err != nil {
		return nil, fmt.Errorf("secret %s: the candidate's roots: %w", o.target, err)
	}
	m.Roots = nil
	if b, err := certs.New(m, want); err == nil {
		c.trusted, c.byMesh = true, b
	}
	return c, nil
}

// decideCandidate decides whether the candidate replaces the Secret's content.
func (o Observation) decideCandidate(c *candidate, rule Rule, now time.Time) Decision {
	switch {
	case o.State == Absent && c != nil:
		return o.writeCandidate(CauseAbsent, c, rule, now)
	case o.State == Good:
		return o.decideRenewal(c, rule, now)
	case o.Former != nil && rule == WhenDue:
		// Publishers of two trust domains would overwrite each other again and again.
		o.Bundle, o.RenewAfter = o.keptBundle()
		return o.decideRenewal(c, rule, now)
	case c == nil:
		return Decision{Cause: CauseNoCandidate}
	case !c.trusted && certs.ReasonOf(o.Err) == certs.Untrusted:
		return o.decideUntrusted(c, rule, now)
	case o.future != nil && !c.byMesh.NotAfter().After(o.future.NotAfter()):
		return Decision{Cause: CauseStale, NextCheck: o.future.NotBefore()}
	}
	return o.writeCandidate(CauseBad, c, rule, now)
}

// decideUntrusted decides when the mesh's roots verify neither the Secret's chain
// nor the candidate's. If the candidate's own roots verify both, the rules for a
// valid bundle apply. If they do not, the publisher of the other chain would
// decide the same about ours, and the two would overwrite each other again and again.
func (o Observation) decideUntrusted(c *candidate, rule Rule, now time.Time) Decision {
	b, err := bundleIn(o.secret, o.target.ID, c.roots, now)
	if err != nil {
		return Decision{Cause: CauseUntrusted}
	}
	o.State, o.Bundle, o.RenewAfter = Good, b, renewAfter(o.secret, b)
	return o.decideRenewal(&candidate{Bundle: c.Bundle, byMesh: c.Bundle, roots: c.roots, trusted: true}, rule, now)
}

// decideRenewal decides whether the candidate replaces a valid bundle.
func (o Observation) decideRenewal(c *candidate, rule Rule, now time.Time) Decision {
	due := !now.Before(o.RenewAfter)
	switch {
	case !due && (c == nil || rule != WhenNewer):
		return Decision{Cause: CauseNotDue, NextCheck: o.RenewAfter}
	case c == nil:
		return Decision{Cause: CauseNoCandidate, NextCheck: o.Bundle.UsefulUntil()}
	case !c.trusted && due:
		return Decision{Cause: CauseUntrusted, NextCheck: o.Bundle.UsefulUntil()}
	case !c.trusted:
		return Decision{Cause: CauseUntrusted, NextCheck: o.RenewAfter}
	case rule == WhenNewer && isNewer(c.byMesh, o.Bundle):
		return o.writeCandidate(CauseNewer, c, rule, now)
	case !due:
		return Decision{Cause: CauseNotDue, NextCheck: o.RenewAfter}
	case livesLonger(c.byMesh, o.Bundle, now):
		return o.writeCandidate(CauseDue, c, rule, now)
	}
	return Decision{Cause: CauseNoBetter, NextCheck: whenLivesLonger(c.byMesh, o.Bundle, now)}
}

// writeCandidate writes the candidate, with those roots in the Secret that are not known
// to be gone and were added since the publisher started.
func (o Observation) writeCandidate(cause Cause, c *candidate, rule Rule, now time.Time) Decision {
	b := c.Bundle
	kept := slices.DeleteFunc(o.keptRoots(rule), func(r *x509.Certificate) bool { return contains(o.foundRoots, r) })
	if len(kept) > 0 {
		m := certs.Material{Key: b.Key(), Chain: b.Chain(), Roots: certs.EncodeCertificates(append(kept, c.roots...))}
		if merged, err := certs.New(m, certs.Want{ID: o.target.ID, Roots: o.target.Roots, Now: now}); err == nil {
			b = merged
		}
	}
	renew := renewAfterPublishing(b, now)
	return Decision{Write: true, Cause: cause, Bundle: b, RenewAfter: renew, NextCheck: renew}
}

// refreshCause says why to write a valid Secret again with the key and the chain
// that it has, and is empty when there is no reason. A root that only the
// candidate brings along is no reason to remove that root.
func (o Observation) refreshCause(c *candidate, rule Rule) Cause {
	if b, _ := o.keptBundle(); b == nil {
		return ""
	}
	gone := o.goneRoots(rule)
	if o.LacksRoot || slices.ContainsFunc(gone, func(r *x509.Certificate) bool { return c == nil || !contains(c.roots, r) }) {
		return CauseRoots
	}
	if o.LabelsDiffer {
		return CauseLabels
	}
	return ""
}

// keptBundle is the Secret's valid bundle, which may be of a former trust domain, with its
// renewal point. It is nil when there is none that may be written.
func (o Observation) keptBundle() (*certs.Bundle, time.Time) {
	switch {
	case o.State == Good:
		return o.Bundle, o.RenewAfter
	case o.State == Bad && o.Former != nil:
		return o.Former, renewAfter(o.secret, o.Former)
	}
	return nil, time.Time{}
}

// goneRoots are the roots that are taken out of a valid Secret. One of many
// publishers may be the last to learn of a new root, so it takes out only those that
// it knows to be gone.
func (o Observation) goneRoots(rule Rule) []*x509.Certificate {
	if rule == WhenDue {
		return o.removedRoots
	}
	return o.extraRoots
}

// keptRoots are the roots in the Secret that are not the mesh's and stay nevertheless.
func (o Observation) keptRoots(rule Rule) []*x509.Certificate {
	gone := o.goneRoots(rule)
	return slices.DeleteFunc(slices.Clone(o.extraRoots), func(r *x509.Certificate) bool { return contains(gone, r) })
}

// refreshedBundle is the Secret's key and chain with the roots of the mesh and of
// the candidate, and with those in the Secret that are not known to be gone.
func (o Observation) refreshedBundle(c *candidate, rule Rule, now time.Time) (*certs.Bundle, error) {
	current, _ := o.keptBundle()
	m := certs.Material{Key: current.Key(), Chain: current.Chain()}
	kept := o.keptRoots(rule)
	if c != nil {
		kept = append(kept, c.roots...)
	}
	if len(kept) > 0 {
		m.Roots = certs.EncodeCertificates(kept)
	}
	b, err := certs.New(m, certs.Want{ID: current.ID(), Roots: o.target.Roots, Now: now})
	if err != nil {
		return nil, errors.Join(errNoRoots, err)
	}
	return b, nil
}
