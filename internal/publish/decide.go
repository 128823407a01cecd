package publish

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// Cause says in a word why a Secret is written, or is not. The set is closed.
type Cause string

// The causes of a write.
const (
	// CauseAbsent: there is no Secret.
	CauseAbsent Cause = "absent"
	// CauseBad: what stands there is no bundle for this edge.
	CauseBad Cause = "bad"
	// CauseDue: the renewal point has come.
	CauseDue Cause = "due"
	// CauseNewer: the candidate is newer, by Rule WhenNewer.
	CauseNewer Cause = "newer"
	// CauseRoots: the mesh's roots have changed. Key and chain stay.
	CauseRoots Cause = "roots"
	// CauseLabels: someone changed label or annotations. Key and chain stay.
	CauseLabels Cause = "labels"
)

// The causes of no write.
const (
	// CauseNotDue: what stands there is good and not due.
	CauseNotDue Cause = "not-due"
	// CauseNoBetter: what stands there is due, but the candidate is the same or
	// does not live enough longer.
	CauseNoBetter Cause = "no-better"
	// CauseNoCandidate: a bundle is wanted, and there is none.
	CauseNoCandidate Cause = "no-candidate"
	// CauseUntrusted: the candidate's chain does not lead to a root of the mesh,
	// so that it would be bad for every other publisher.
	CauseUntrusted Cause = "untrusted-candidate"
	// CauseStale: what stands there is not valid yet by our clock, and outlives
	// the candidate.
	CauseStale Cause = "stale-candidate"
	// CauseWorthless: the candidate was a bundle once and is none any more, or it
	// is of another identity.
	CauseWorthless Cause = "worthless-candidate"
	// CauseForeign: the Secret is someone else's.
	CauseForeign Cause = "foreign"
	// CauseIdentity: a valid bundle of another identity stands there.
	CauseIdentity Cause = "conflict"
	// CauseImmutable: the Secret cannot be changed.
	CauseImmutable Cause = "immutable"
)

// Decision says what to do about a Secret.
type Decision struct {
	// Write: the Secret is to be written, with Bundle in it.
	Write bool
	// Cause says why, or why not.
	Cause Cause
	// Bundle is what is to be in the Secret: the candidate, or what is there
	// already with other roots. Nil unless Write.
	Bundle *certs.Bundle
	// RenewAfter is when Bundle will be due. Zero unless Write.
	RenewAfter time.Time
	// Err says what is wrong, where the Secret is refused or the candidate is
	// worthless.
	Err error
	// Again is when to decide again although nothing has changed, zero when only
	// a change can make a difference.
	Again time.Time
}

// Decide decides whether the candidate goes into the Secret. It is pure. The
// candidate is nil where there is none: then roots and labels are all that may
// change.
//
// A good Secret is replaced at its renewal point, by a candidate whose rest of
// life is at least a tenth longer; by Rule WhenNewer it is replaced earlier too.
// So of many publishers one writes, and one whose bundle is old writes never.
func Decide(s Standing, candidate *certs.Bundle, rule Rule, now time.Time) Decision {
	switch s.State {
	case Foreign:
		return Decision{Cause: CauseForeign, Err: s.Err}
	case Immutable:
		return Decision{Cause: CauseImmutable, Err: s.Err}
	case OtherIdentity:
		return Decision{Cause: CauseIdentity, Err: s.Err, Again: s.until}
	}
	if len(s.target.Roots) == 0 {
		return Decision{Cause: CauseNoCandidate, Err: fmt.Errorf("secret %s: %w", s.target, errNoRoots)}
	}
	c, err := s.reconsider(candidate, now)
	d := s.weigh(c, rule, now)
	if d.Write {
		return d
	}
	if err != nil && d.Cause == CauseNoCandidate { // else nobody wants it
		d.Cause, d.Err = CauseWorthless, err
	}
	// What stands there is good in itself: keep it, and set right what is around
	// it. Its renewal point stays.
	if cause := s.wantsRefresh(c); cause != "" {
		if b, err := s.refreshed(c, now); err == nil {
			return Decision{Write: true, Cause: cause, Bundle: b, RenewAfter: s.RenewAfter, Again: s.RenewAfter}
		}
	}
	return d
}

// candidate is a bundle with what matters of it here.
type candidate struct {
	*certs.Bundle
	// trusted: its chain leads to a root of the mesh, not only to one of its own.
	trusted bool
	roots   []*x509.Certificate
}

// reconsider makes the bundle anew: it may have been one an hour ago, for other
// roots. No candidate is no error.
func (s Standing) reconsider(b *certs.Bundle, now time.Time) (*candidate, error) {
	if b == nil {
		return nil, nil // neither is there
	}
	m := certs.Material{Key: b.Key(), Chain: b.Chain(), Roots: b.Roots()}
	want := certs.Want{ID: s.target.ID, Roots: s.target.Roots, Now: now}
	fresh, err := certs.New(m, want)
	if err != nil {
		return nil, fmt.Errorf("secret %s: the candidate: %w", s.target, err)
	}
	c := &candidate{Bundle: fresh}
	if c.roots, err = certs.ParseCertificates(fresh.Roots()); err != nil {
		return nil, fmt.Errorf("secret %s: the candidate's roots: %w", s.target, err)
	}
	m.Roots = nil
	_, err = certs.New(m, want)
	c.trusted = err == nil
	return c, nil
}

// weigh decides between what stands there and the candidate.
func (s Standing) weigh(c *candidate, rule Rule, now time.Time) Decision {
	switch {
	case s.State == Absent && c != nil:
		return write(CauseAbsent, c, now)
	case s.State == Good:
		return s.weighGood(c, rule, now)
	case c == nil:
		return Decision{Cause: CauseNoCandidate}
	case !c.trusted && certs.ReasonOf(s.Err) == certs.Untrusted:
		return s.weighStrangers(c, rule, now)
	case s.future != nil && !c.NotAfter().After(s.future.NotAfter()):
		return Decision{Cause: CauseStale, Again: s.future.NotBefore()}
	}
	return write(CauseBad, c, now)
}

// weighStrangers decides between two that the mesh does not trust. Where the
// candidate's own roots trust both, one is as good as the other. Where they do
// not, whoever wrote the other would say the same of ours, and write again.
func (s Standing) weighStrangers(c *candidate, rule Rule, now time.Time) Decision {
	b, err := held(s.secret, s.target.ID, c.roots, now)
	if err != nil {
		return Decision{Cause: CauseUntrusted}
	}
	s.State, s.Bundle, s.RenewAfter = Good, b, renewAfter(s.secret, b)
	return s.weighGood(&candidate{Bundle: c.Bundle, roots: c.roots, trusted: true}, rule, now)
}

func (s Standing) weighGood(c *candidate, rule Rule, now time.Time) Decision {
	due := !now.Before(s.RenewAfter)
	switch {
	case !due && (c == nil || rule != WhenNewer):
		return Decision{Cause: CauseNotDue, Again: s.RenewAfter}
	case c == nil:
		return Decision{Cause: CauseNoCandidate, Again: s.Bundle.UsefulUntil()}
	case !c.trusted:
		return Decision{Cause: CauseUntrusted, Again: s.later(now)}
	case rule == WhenNewer && isNewer(c.Bundle, s.Bundle):
		return write(CauseNewer, c, now)
	case !due:
		return Decision{Cause: CauseNotDue, Again: s.RenewAfter}
	case livesLonger(c.Bundle, s.Bundle, now):
		return write(CauseDue, c, now)
	}
	return Decision{Cause: CauseNoBetter, Again: s.whenLonger(c, now)}
}

// later is the renewal point, or the end of what stands there when that is over.
func (s Standing) later(now time.Time) time.Time {
	if now.Before(s.RenewAfter) {
		return s.RenewAfter
	}
	return s.Bundle.UsefulUntil()
}

// whenLonger is when the candidate, of which more is left, will be a tenth
// longer than the shrinking rest of what stands there: that is ten times the
// difference before the end. At the latest it is when that becomes useless.
func (s Standing) whenLonger(c *candidate, now time.Time) time.Time {
	end := s.Bundle.UsefulUntil()
	difference := c.NotAfter().Sub(s.Bundle.NotAfter())
	if difference <= 0 {
		return end
	}
	at := s.Bundle.NotAfter().Add(-10 * difference)
	if at.Before(now) || at.After(end) {
		return end
	}
	return at
}

// isNewer: it was issued later, even for a shorter life, as after a lifetime was
// cut; of two of the same moment, the longer one, or another that lives as long.
func isNewer(c, standing *certs.Bundle) bool {
	if !c.NotBefore().Equal(standing.NotBefore()) {
		return c.NotBefore().After(standing.NotBefore())
	}
	return c.NotAfter().After(standing.NotAfter()) || c.NotAfter().Equal(standing.NotAfter()) && !same(c, standing)
}

// livesLonger: the rest of its life is at least a tenth longer.
func livesLonger(c, standing *certs.Bundle, now time.Time) bool {
	return 10*c.NotAfter().Sub(now) >= 11*standing.NotAfter().Sub(now)
}

func write(cause Cause, c *candidate, now time.Time) Decision {
	renew := now.Add(c.NotAfter().Sub(now) / 3)
	if latest := partOfLife(c.Bundle, 2); renew.After(latest) {
		renew = latest
	}
	return Decision{Write: true, Cause: cause, Bundle: c.Bundle, RenewAfter: renew, Again: renew}
}

// wantsRefresh says why a good Secret is to be written with the key and chain
// that it has: nothing when it is not. A root that only the candidate brings is
// no reason to take it out again.
func (s Standing) wantsRefresh(c *candidate) Cause {
	if s.State != Good {
		return ""
	}
	if s.lacksRoot || slices.ContainsFunc(s.strangers, func(r *x509.Certificate) bool { return c == nil || !contains(c.roots, r) }) {
		return CauseRoots
	}
	if s.LabelsDiffer {
		return CauseLabels
	}
	return ""
}

// refreshed is what stands there, with the roots of the mesh and of the
// candidate.
func (s Standing) refreshed(c *candidate, now time.Time) (*certs.Bundle, error) {
	m := certs.Material{Key: s.Bundle.Key(), Chain: s.Bundle.Chain()}
	if c != nil {
		m.Roots = c.Roots()
	}
	b, err := certs.New(m, certs.Want{ID: s.target.ID, Roots: s.target.Roots, Now: now})
	if err != nil {
		return nil, errors.Join(errNoRoots, err)
	}
	return b, nil
}
