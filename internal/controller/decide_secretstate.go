package controller

import (
	"time"
	"unique"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
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
	// when it is not pending. The source was asked that many times, and is not asked
	// again before askAfter.
	pendingSince time.Time
	asks         int
	askAfter     time.Time
	// state, problem, renewAfter and notAfter describe the Secret at the last check.
	// notGoodSince is when it was first seen without a valid certificate; zero while it
	// has one.
	state                publish.State
	problem              string
	renewAfter, notAfter time.Time
	notGoodSince         time.Time
	// leftover is what a source that is no longer used left in the cluster.
	leftover leftover
	// hasIgnored is true when a claim could not be resolved.
	hasIgnored bool
	// roots are those of the last good bundle, as PEM: the same for all Secrets.
	roots unique.Handle[string]
	// target is the holder's, without roots. Its name is empty before the first
	// check.
	target publish.Target
	// account is the holder's service account.
	account string
	// due is when the bundle is to be replaced. See dueTime.
	due time.Time
	// published is when the Secret was last written, and nudged when it was last nudged,
	// as its annotations say. nudgeTried is the last attempt to nudge it.
	published, nudged, nudgeTried time.Time
}

// isKnown reports whether the Secret was checked before.
func (s secretState) isKnown() bool { return s.target.Name != "" }

// remember returns the state after a check.
func (s secretState) remember(h holder, now time.Time) secretState {
	t, observation := h.target, h.observation
	t.Roots = nil
	s.target, s.account, s.state, s.problem = t, h.serviceAccount, observation.State, ""
	s.renewAfter, s.notAfter = observation.RenewAfter, time.Time{}
	s.published, s.nudged = observation.PublishedAt, observation.Nudged
	if observation.Err != nil {
		s.problem = observation.Err.Error()
	}
	switch {
	case observation.State == publish.Good:
		s.roots = unique.Make(string(observation.Bundle.Roots()))
		s.notAfter, s.notGoodSince = observation.Bundle.NotAfter(), time.Time{}
	case s.notGoodSince.IsZero():
		s.notGoodSince = now
	}
	return s
}

// resetPending forgets that the source has not issued yet.
func (s *secretState) resetPending() {
	s.pendingSince, s.asks, s.askAfter = time.Time{}, 0, time.Time{}
}

// lifeLeft is what is left of the certificate's life; zero without a valid one.
func (s secretState) lifeLeft(now time.Time) time.Duration {
	return max(s.notAfter.Sub(now), 0)
}

// keepPending returns the state with a bundle that could not be published.
func (s secretState) keepPending(b *certs.Bundle, now time.Time) secretState {
	if b == nil || s.pending != nil && s.pending.Serial() == b.Serial() {
		return s
	}
	s.pending, s.pendingUntil = b, now.Add(b.NotAfter().Sub(now)/2)
	return s
}

// leftover is what a former source of a Secret left in the cluster, and when its
// removal is tried next.
type leftover struct {
	source    policy.Source
	failures  int
	after     time.Time
	isRemoved bool
}

// leavesObjects reports whether a source creates objects in the cluster.
func leavesObjects(source policy.Source) bool { return source == policy.CertManager }

// note remembers a source whose objects are to be removed. It changes nothing when that
// is known, and may have been done already.
func (l *leftover) note(source policy.Source) {
	if l.source != source {
		*l = leftover{source: source}
	}
}

func (l leftover) isDue(now time.Time) bool {
	return l.source != "" && !l.isRemoved && !now.Before(l.after)
}

// postpone has the removal tried again later.
func (l *leftover) postpone(now time.Time, random func() float64) {
	l.after = now.Add(jitter(min(firstRemovalRetry<<min(l.failures, 10), lastRemovalRetry), 0.1, random))
	l.failures++
}
