package controller

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// decideOutcome decides what follows from an attempt to publish, after
// stepPublish.
func decideOutcome(d secretDecision, outcome publish.Outcome, err error, now time.Time, random func() float64) secretDecision {
	d.effects = effects{results: []publish.Result{outcome.Result}}
	if err != nil {
		reason := EventFailed
		if outcome.Result == publish.Failed {
			d.state = d.state.keepPending(d.bundle, now)
		} else {
			reason, d.state.pending = EventConflict, nil // nobody may write the Secret
		}
		d.effects.record(events.Warning(d.secret(), reason, err.Error()))
		return d.fail(errors.Join(err, d.sourceFailure()))
	}
	if d.bundle != nil {
		d.state.pending = nil
	}
	if outcome.Result != publish.Published {
		return d.end(now)
	}
	d.effects.isPublished = true
	d.effects.resolve(d.secret(), EventRootChanged)
	d.holder.observation = outcome.Observation
	d.observe(now, random)
	current := outcome.Observation.Bundle
	if current == nil && d.bundle == nil {
		current = outcome.Observation.Former // the roots of a former trust domain's certificate
	}
	if current == nil {
		// Somebody changes the Secret while it is written. A new certificate would be no
		// better.
		d.state = d.state.keepPending(d.bundle, now)
		return d.fail(fmt.Errorf("secret %s was written, and somebody changed it meanwhile: %w", d.target, outcome.Observation.Err))
	}
	d.effects.record(events.Normal(d.secret(), EventPublished, fmt.Sprintf("%s (%s)", current, outcome.Cause)))
	if !d.renewBy.IsZero() && d.renewBy.Before(d.state.due) {
		d.state.due = d.renewBy
	}
	return d.end(now)
}

// sourceFailure is the failure of the source; nil when it has only not issued yet.
func (d secretDecision) sourceFailure() error {
	if d.sourceErr == nil || errors.Is(d.sourceErr, certs.ErrPending) {
		return nil
	}
	return fmt.Errorf("certificate for secret %s/%s: %w", d.holder.target.Namespace, d.holder.target.Name, d.sourceErr)
}

// decideRemoval decides what follows from an attempt to remove what the former
// source left, after stepRemove. A failure does not keep the Secret from its next
// check; the removal is tried again with growing pauses.
func decideRemoval(d secretDecision, err error, now time.Time, random func() float64) secretDecision {
	d.effects = effects{}
	if err != nil {
		d.state.leftover.postpone(now, random)
		d.effects.record(leftBehind(d.secret(), d.formerSource, err))
		return d.conclude(now)
	}
	d.state.leftover.isRemoved = true
	d.effects.resolve(d.secret(), EventLeftBehind)
	return d.conclude(now)
}

// leftBehind reports what a source created for a Secret and cannot be removed.
func leftBehind(secret corev1.ObjectReference, source policy.Source, err error) events.Event {
	return events.Warning(secret, EventLeftBehind, fmt.Sprintf("what source %s created for the Secret cannot be removed and stays: %v", source, err))
}

// conclude ends the check of a Secret that may be written.
func (d secretDecision) conclude(now time.Time) secretDecision {
	switch err := d.sourceFailure(); {
	case err != nil:
		return d.fail(err)
	case d.sourceErr != nil:
		return d.done(d.state.askAfter, now)
	}
	d.effects.resolve(d.secret(), EventFailed, EventRejected)
	return d.done(d.state.due, now)
}
