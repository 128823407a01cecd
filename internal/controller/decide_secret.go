package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	// pendingRetry is the time between two requests to a source that has not issued
	// the certificate yet.
	pendingRetry = 2 * time.Second
	// pendingReportAfter is how long a certificate may be pending before an Event
	// reports it.
	pendingReportAfter = time.Minute
)

// secretStep is what to do next about a Secret.
type secretStep string

const (
	// stepDone: nothing, until secretDecision.next.
	stepDone secretStep = "done"
	// stepIssue: send secretDecision.request to the source, then decideIssuance.
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
	// request is for the source: with stepIssue.
	request certs.Request
	// bundle is what to publish; nil publishes only roots and labels.
	bundle *certs.Bundle
	// formerSource is the source of the Secret before it was published.
	formerSource policy.Source
	// published is the Event about the Secret that was published.
	published events.Event
	// state is what to remember of the Secret.
	state   secretState
	effects effects
	// regular is the next check while nothing is due, and next the next one after
	// stepDone: regular or earlier. Both are zero when the Secret is unreadable.
	regular, next time.Time
	// err is a failure that is retried with backoff.
	err error
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
	d := secretDecision{state: s}
	if o.readErr != nil {
		d.effects.results = []publish.Result{publish.Failed}
		return d.fail(fmt.Errorf("read secret %s/%s: %w", o.namespace, o.name, o.readErr))
	}
	d.regular = nextCheck(!s.isKnown(), o.interval, now, random)
	secret := secretReference(o.namespace, o.name)
	var err error
	if d.holder, err = chooseHolder(o, s.target.ID.String(), now); err != nil {
		// Roots or mesh settings are not available yet; retry at the regular interval.
		d.effects.record(events.Warning(secret, EventFailed, err.Error()))
		return d.done(d.regular, now)
	}
	for _, loser := range losersOf(o.claims, d.holder) {
		d.effects.results = append(d.effects.results, publish.RefusedIdentity)
		d.effects.record(events.Warning(loser.reference(), EventConflict, fmt.Sprintf(
			"secret %s serves service account %s, so service account %s has no Secret; choose another name for one of the two with annotation %s",
			o.name, d.holder.serviceAccount, loser.serviceAccount, policy.SecretNameKey)))
	}
	d.observe(random)
	if result, isRefused := refusals[d.holder.observation.State]; isRefused {
		d.state.pending = nil
		d.effects.results = append(d.effects.results, result)
		d.effects.record(events.Warning(secret, EventConflict, d.holder.observation.Err.Error()))
		return d.done(d.regular, now)
	}
	d.effects.resolve(secret, EventConflict)
	if d.holder.source == policy.Agent {
		return d.done(d.regular, now) // written from inside the pod
	}
	return d.useSource(r, now, random)
}

// refusals are the results for Secrets that Isthmus may not write.
var refusals = map[publish.State]publish.Result{
	publish.Foreign: publish.RefusedForeign, publish.OtherIdentity: publish.RefusedIdentity, publish.Immutable: publish.RefusedImmutable,
}

// observe remembers the holder's observation, and adds its effects.
func (d *secretDecision) observe(random func() float64) {
	before, h := d.state, d.holder
	if before.isKnown() && (before.target.ID != h.target.ID || before.target.Source != h.target.Source) {
		former := before.target
		d.effects.formerTarget = &former
	}
	d.state = before.remember(h.target, h.observation)
	d.effects.isObserved = true
	secret := secretReference(h.target.Namespace, h.target.Name)
	switch h.observation.State {
	case publish.Bad:
		if before.state != publish.Bad || before.problem != d.state.problem {
			d.effects.reject(h.observation.Err)
		}
		d.effects.record(events.Warning(secret, EventRejected, "the content of the Secret: "+h.observation.Err.Error()))
	case publish.Good:
		d.effects.resolve(secret, EventRejected, EventFailed)
		if before.due.IsZero() || !before.renewAfter.Equal(h.observation.RenewAfter) {
			rest := h.observation.Bundle.NotAfter().Sub(h.observation.RenewAfter)
			d.state.due = h.observation.RenewAfter.Add(jitter(rest/20, 1, random)) // up to a tenth of the rest later
		}
		if h.observation.RootsDiffer {
			d.effects.record(events.Normal(secret, EventRootChanged, "the mesh's roots changed; the Secret is updated"))
		}
	}
}

// useSource decides whether to send the source a request, and which.
func (d secretDecision) useSource(r rules, now time.Time, random func() float64) secretDecision {
	h := d.holder
	if !r.sources[h.source] {
		return d.handleIssuance(nil, fmt.Errorf("source %s is not set up in this installation; choose another with annotation %s", h.source, policy.SourceKey), now, random)
	}
	d.request = requestOf(h, now)
	if h.source == policy.Mirror && !slices.Contains(r.mirrorSecrets, d.request.MirrorSecret) {
		return d.handleIssuance(nil, fmt.Errorf("secret %s may not be mirrored; add it to the chart's value controller.mirrorSecretNames (%s), or name another with annotation %s",
			d.request.MirrorSecret, strings.Join(r.mirrorSecrets, ", "), policy.MirrorSecretKey), now, random)
	}
	// The other sources have one certificate at a time and renew it themselves, so
	// every check sends them a request.
	if h.source == policy.IstioCA {
		switch {
		case h.observation.State == publish.Good && now.Before(d.state.due):
			return d.publish(nil, now)
		case d.state.pending != nil && d.state.pending.ID() == h.target.ID && now.Before(d.state.pendingUntil):
			return d.publish(d.state.pending, now)
		}
	}
	d.step = stepIssue
	return d
}

// requestOf is the request to the holder's source.
func requestOf(h holder, now time.Time) certs.Request {
	ttl := h.options.CertTTL
	if ttl == 0 {
		ttl = patches.DefaultCertTTL
		if limit := time.Duration(h.mesh.MaxCertTTL); limit > 0 && h.source == policy.IstioCA {
			ttl = min(ttl, limit)
		}
	}
	mirror := h.options.MirrorSecret
	if mirror == "" {
		mirror = "istio." + h.serviceAccount
	}
	return certs.Request{
		Namespace: h.target.Namespace, ServiceAccount: h.serviceAccount, Secret: h.target.Name, MirrorSecret: mirror,
		CAAddress: h.mesh.CAAddress, TokenAudience: h.mesh.TokenAudience, ClusterID: h.mesh.ClusterID, TTL: ttl,
		Want: certs.Want{ID: h.target.ID, Roots: h.target.Roots, Now: now},
	}
}

// decideIssuance decides what follows from the answer of the source, after
// stepIssue.
func decideIssuance(d secretDecision, bundle *certs.Bundle, err error, now time.Time, random func() float64) secretDecision {
	d.effects = effects{}
	return d.handleIssuance(bundle, err, now, random)
}

func (d secretDecision) handleIssuance(bundle *certs.Bundle, err error, now time.Time, random func() float64) secretDecision {
	secret := secretReference(d.holder.target.Namespace, d.holder.target.Name)
	switch {
	case errors.Is(err, certs.ErrPending):
		if d.state.pendingSince.IsZero() {
			d.state.pendingSince = now
		}
		if now.Sub(d.state.pendingSince) > pendingReportAfter {
			d.effects.record(events.Warning(secret, EventFailed, err.Error()))
		}
		return d.done(now.Add(jitter(pendingRetry, 0.2, random)), now)
	case err != nil:
		reason := EventFailed
		if certs.ReasonOf(err) != "" {
			reason = EventRejected
			d.effects.reject(err)
		}
		d.effects.record(events.Warning(secret, reason, err.Error()))
		return d.fail(fmt.Errorf("certificate for secret %s/%s: %w", d.holder.target.Namespace, d.holder.target.Name, err))
	case bundle != nil && d.holder.source == policy.IstioCA:
		d.effects.record(events.Normal(secret, EventIssued, bundle.String()))
	}
	return d.publish(bundle, now)
}

// publish decides whether the Secret is written. A nil bundle means that no new one
// is due.
func (d secretDecision) publish(bundle *certs.Bundle, now time.Time) secretDecision {
	if bundle == nil && !d.holder.observation.RootsDiffer && !d.holder.observation.LabelsDiffer {
		return d.done(d.state.due, now)
	}
	d.step, d.bundle = stepPublish, bundle
	return d
}

// decideOutcome decides what follows from an attempt to publish, after
// stepPublish.
func decideOutcome(d secretDecision, outcome publish.Outcome, err error, now time.Time, random func() float64) secretDecision {
	secret := secretReference(d.holder.target.Namespace, d.holder.target.Name)
	d.effects = effects{results: []publish.Result{outcome.Result}}
	if err != nil {
		if outcome.Result == publish.Failed {
			d.state = d.state.keepPending(d.bundle, now)
		}
		d.effects.record(events.Warning(secret, EventFailed, err.Error()))
		return d.fail(err)
	}
	d.state.pending, d.state.pendingSince = nil, time.Time{}
	if outcome.Result != publish.Published {
		return d.done(d.state.due, now)
	}
	d.effects.isPublished = true
	d.effects.resolve(secret, EventFailed, EventRejected, EventRootChanged)
	d.formerSource = policy.Source(d.holder.observation.Source)
	d.holder.observation = outcome.Observation
	d.observe(random)
	d.published = events.Normal(secret, EventPublished, fmt.Sprintf("%s (%s)", outcome.Observation.Bundle, outcome.Cause))
	if d.formerSource != "" && d.formerSource != d.holder.source {
		d.step = stepRemove
		return d
	}
	return d.finish(now)
}

// decideRemoval decides what follows from an attempt to remove what the former
// source left, after stepRemove.
func decideRemoval(d secretDecision, err error, now time.Time) secretDecision {
	d.effects = effects{}
	if err != nil {
		return d.fail(err)
	}
	return d.finish(now)
}

// finish ends the check of a Secret that was published.
func (d secretDecision) finish(now time.Time) secretDecision {
	d.effects.record(d.published)
	return d.done(d.state.due, now)
}
