package controller

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// secretStep is what to do next about a Secret.
type secretStep string

const (
	// stepDone: nothing, until secretDecision.next.
	stepDone secretStep = "done"
	// stepIssue: send secretDecision.request to secretDecision.source, then
	// decideIssuance.
	stepIssue secretStep = "issue"
	// stepPublish: publish secretDecision.bundle, then decideOutcome.
	stepPublish secretStep = "publish"
	// stepRemove: remove what secretDecision.formerSource left in the cluster, then
	// decideRemoval.
	stepRemove secretStep = "remove"
)

// secretDecision is the next step about a Secret, with what to report and to
// remember before it. The decisions of one check follow each other: each takes the
// one before and the answer to its step.
type secretDecision struct {
	step   secretStep
	holder holder
	// source is where a certificate is requested: the holder's source, or istio-ca when
	// no publisher writes the Secret.
	source policy.Source
	// request is for the source: with stepIssue.
	request certs.Request
	// bundle is what to publish; nil publishes only roots and labels. target and rule
	// say how, and renewBy, unless zero, brings the renewal point forward when only the
	// roots are published: with stepPublish.
	bundle  *certs.Bundle
	target  publish.Target
	rule    publish.Rule
	renewBy time.Time
	// sourceErr says why the source delivers no certificate that is needed;
	// certs.ErrPending when it has not issued yet. What needs no source is published
	// nevertheless.
	sourceErr error
	// formerSource is the source that left objects in the cluster: with stepRemove.
	formerSource policy.Source
	// state is what to remember of the Secret.
	state   secretState
	effects effects
	// leafSpread is the observation's.
	leafSpread time.Duration
	// regular is the next check while nothing is due, and next the next one after
	// stepDone: regular or earlier. Both are zero when the Secret is unreadable.
	regular, next time.Time
	// err is a failure that is retried with backoff.
	err error
}

// secret is the Secret as the object of an Event.
func (d secretDecision) secret() corev1.ObjectReference {
	return secretReference(d.holder.target.Namespace, d.holder.target.Name)
}

// done ends the check. The next check is at the given time if that is earlier than
// the regular check and not past. A certificate that is due and was not issued is
// requested again at the regular check.
func (d secretDecision) done(next, now time.Time) secretDecision {
	if d.regular.Before(next) || !next.After(now) {
		next = d.regular
	}
	d.step, d.next = stepDone, next
	return d
}

// fail ends the check with an error.
func (d secretDecision) fail(err error) secretDecision {
	d.step, d.next, d.err = stepDone, d.regular, err
	return d
}

// decideSecret begins a check of a Secret: it decides which claim the Secret serves,
// whether Isthmus may write it, and whether something is due.
func decideSecret(o secretObservation, s secretState, r rules, now time.Time, random func() float64) secretDecision {
	d := secretDecision{state: s, leafSpread: o.leafSpread}
	if o.readErr != nil {
		d.effects.results = []publish.Result{publish.Failed}
		return d.fail(fmt.Errorf("read secret %s/%s: %w", o.namespace, o.name, o.readErr))
	}
	d.regular = nextCheck(!s.isKnown(), o.interval, now, random)
	secret := secretReference(o.namespace, o.name)
	holder, ignored, err := chooseHolder(o, s.target.ID, now)
	if err != nil {
		// Roots or mesh settings are not available yet; retry at the regular interval.
		d.effects.record(events.Warning(secret, EventFailed, err.Error()))
		if len(ignored) > 0 {
			d.reportIgnored(o, ignored)
		}
		return d.done(d.regular, now)
	}
	d.holder = holder
	d.reportIgnored(o, ignored)
	for _, loser := range losersOf(o.claims, d.holder) {
		d.effects.results = append(d.effects.results, publish.RefusedIdentity)
		d.effects.record(events.Warning(loser.reference(), EventConflict, fmt.Sprintf(
			"secret %s serves service account %s, so service account %s has no Secret; choose another name for one of the two with annotation %s",
			o.name, d.holder.serviceAccount, loser.serviceAccount, policy.SecretNameKey)))
	}
	d.observe(now, random)
	if result, isRefused := refusals[d.holder.observation.State]; isRefused {
		d.state.pending = nil
		d.effects.results = append(d.effects.results, result)
		d.effects.record(events.Warning(secret, EventConflict, d.holder.observation.Err.Error()))
		return d.done(d.regular, now)
	}
	d.effects.resolve(secret, EventConflict)
	if d.holder.source == policy.Agent {
		return d.awaitPublisher(r, now, random)
	}
	return d.useSource(d.holder.source, r, now, random)
}

// refusals are the results for Secrets that Isthmus may not write.
var refusals = map[publish.State]publish.Result{
	publish.Foreign: publish.RefusedForeign, publish.OtherIdentity: publish.RefusedIdentity, publish.Immutable: publish.RefusedImmutable,
}

// reportIgnored reports the claims that cannot be resolved, each to its pod, or to the
// Secret when it is the namespace's.
func (d *secretDecision) reportIgnored(o secretObservation, ignored []ignoredClaim) {
	secret := secretReference(o.namespace, o.name)
	reference := func(c claim) corev1.ObjectReference {
		if c.uid == "" {
			return secret
		}
		return c.reference()
	}
	if d.state.hasIgnored {
		for _, c := range o.claims {
			if !isIgnored(ignored, c) {
				d.effects.resolve(reference(c), EventClaimIgnored)
			}
		}
	}
	for _, i := range ignored {
		d.effects.record(events.Warning(reference(i.claim), EventClaimIgnored, fmt.Sprintf(
			"secret %s does not take service account %s into account: %v", o.name, i.serviceAccount, i.err)))
	}
	d.state.hasIgnored = len(ignored) > 0
}

// observe remembers the holder's observation, and adds its effects.
func (d *secretDecision) observe(now time.Time, random func() float64) {
	before, h := d.state, d.holder
	isOther := before.isKnown() && (before.target.ID != h.target.ID || before.target.Source != h.target.Source)
	if isOther {
		former := before.target
		d.effects.formerTarget = &former
	}
	d.state = before.remember(h, now)
	if isOther || (before.state == publish.Good) != (d.state.state == publish.Good) {
		d.state.resetPending() // it was another request, or for another reason
	}
	d.effects.isObserved = true
	if isOther && d.state.leftover.source == h.source {
		d.state.leftover = leftover{} // it is used again
	}
	if former := policy.Source(before.target.Source); isOther && former != h.source && leavesObjects(former) {
		// It may have created objects although it never issued. They may have been removed
		// before: it was used again since.
		d.state.leftover = leftover{source: former}
	}
	if former := policy.Source(h.observation.Source); former != h.source && leavesObjects(former) {
		d.state.leftover.note(former)
	}
	switch h.observation.State {
	case publish.Bad:
		if before.state != publish.Bad || before.problem != d.state.problem {
			d.effects.reject(h.observation.Err)
		}
		d.effects.record(events.Warning(d.secret(), EventRejected, "the content of the Secret: "+h.observation.Err.Error()))
	case publish.Good:
		if isOther || before.due.IsZero() || !before.renewAfter.Equal(h.observation.RenewAfter) {
			d.state.due = dueTime(h.source, h.observation, random)
		}
		if h.observation.RootsDiffer {
			d.effects.record(events.Normal(d.secret(), EventRootChanged, "the mesh's roots changed; the Secret is updated"))
		}
	}
}

// refresh decides whether roots and labels are written although there is no new
// certificate: none is due, or the source delivers none.
func (d secretDecision) refresh(now time.Time, random func() float64) secretDecision {
	o := d.holder.observation
	d.step, d.bundle, d.target, d.rule = stepPublish, nil, d.holder.target, publish.WhenNewer
	if d.holder.source == policy.Agent && o.Source == string(policy.Agent) {
		// The publishers write roots too, and take them out: they know those that the
		// agent brings along.
		d.rule = publish.WhenDue
	}
	switch {
	case o.LabelsDiffer || o.LacksRoot:
	case o.RootsDiffer && d.rule == publish.WhenNewer:
	default:
		return d.end(now)
	}
	if o.RootsDiffer && d.holder.source == policy.IstioCA && d.holder.needsLeaf {
		d.renewBy = now.Add(time.Duration(random() * float64(d.leafSpread)))
	}
	return d
}

// end decides what follows once the Secret is as good as it can be made now.
func (d secretDecision) end(now time.Time) secretDecision {
	if d.state.leftover.isDue(now) {
		d.step, d.formerSource = stepRemove, d.state.leftover.source
		return d
	}
	return d.conclude(now)
}
