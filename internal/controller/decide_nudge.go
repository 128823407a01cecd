package controller

import (
	"slices"
	"time"
)

// nudgeDelays are the times from the publication of a Secret to its first nudges. After
// the last of them it is nudged every nudgeInterval, until it is published again.
var nudgeDelays = []time.Duration{5 * time.Second, time.Minute, 10 * time.Minute}

const nudgeInterval = time.Hour

// needsNudges reports whether an edge that holds a Secret may miss a change of it.
func needsNudges(account string, claims []claim) bool {
	return slices.ContainsFunc(claims, func(c claim) bool { return c.serviceAccount == account && c.secret.MissesChanges })
}

// nudgeDecision says whether a Secret is nudged now.
type nudgeDecision struct {
	isDue bool
	// next is when to decide again; zero when a change of the Secret comes first.
	next time.Time
}

// decideNudge decides whether to nudge a Secret. last is the last nudge, or the last
// attempt; zero when there was none. Several nudges that were missed, as while no
// controller ran, are made good by one. One that failed is not tried again before the
// next is due: a nudge is a repetition already.
func decideNudge(published, last, now time.Time) nudgeDecision {
	if published.IsZero() {
		return nudgeDecision{} // an earlier version wrote the Secret
	}
	due, next := nudgeTimes(published, now)
	if last.After(now) {
		last = time.Time{} // somebody else wrote that
	}
	return nudgeDecision{isDue: !due.IsZero() && last.Before(due), next: next}
}

// nudgeTimes returns the last time of a nudge that has come, zero when none has, and the
// next one.
func nudgeTimes(published, now time.Time) (due, next time.Time) {
	for _, delay := range nudgeDelays {
		if next = published.Add(delay); next.After(now) {
			return due, next
		}
		due = next
	}
	due = due.Add(now.Sub(due).Truncate(nudgeInterval))
	return due, due.Add(nudgeInterval)
}
