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
	// pendingRetry is the time between the first two requests to a source that has not
	// issued the certificate yet. It doubles up to maxPendingRetry.
	pendingRetry    = 2 * time.Second
	maxPendingRetry = time.Minute
	// pendingReportAfter is how long a certificate may be pending before an Event
	// reports it.
	pendingReportAfter = time.Minute
	// publisherGrace is how long the publishers have for a Secret that holds no valid
	// certificate, before the controller requests one.
	publisherGrace = 2 * time.Minute
)

// awaitPublisher decides on a Secret that the publishers in the pods write. The
// controller writes roots and labels at once, and requests a certificate itself when no
// publisher has written one in time: a publisher may crash, or lose its node.
func (d secretDecision) awaitPublisher(r rules, now time.Time, random func() float64) secretDecision {
	o := d.holder.observation
	switch {
	case o.State == publish.Good && now.Before(d.state.due):
		if o.Source == string(policy.Agent) {
			d.effects.resolve(d.secret(), EventPublisherSilent)
		}
		return d.refresh(now, random)
	case o.Former != nil:
		// The publishers of a former trust domain and of the present one leave each other's
		// certificate as it is.
		return d.useSource(policy.IstioCA, r, now, random)
	case o.State != publish.Good && now.Before(d.state.notGoodSince.Add(publisherGrace)):
		return d.done(d.state.notGoodSince.Add(publisherGrace), now)
	}
	d.effects.record(events.Warning(d.secret(), EventPublisherSilent,
		"no publisher has written a certificate in time, so the controller requests one (source istio-ca); look at the containers isthmus-publish of the edge's pods"))
	return d.useSource(policy.IstioCA, r, now, random)
}

// useSource decides whether to send the source a request, and which.
func (d secretDecision) useSource(source policy.Source, r rules, now time.Time, random func() float64) secretDecision {
	h := d.holder
	d.source = source
	if !r.sources[source] {
		return d.handleIssuance(nil, fmt.Errorf("source %s is not set up in this installation; choose another with annotation %s", source, policy.SourceKey), now, random)
	}
	d.request = requestOf(h, source, now)
	if source == policy.Mirror && !slices.Contains(r.mirrorSecrets, d.request.MirrorSecret) {
		return d.handleIssuance(nil, fmt.Errorf("secret %s may not be mirrored; add it to the chart's value controller.mirrorSecretNames (%s), or name another with annotation %s",
			d.request.MirrorSecret, strings.Join(r.mirrorSecrets, ", "), policy.MirrorSecretKey), now, random)
	}
	// The other sources have one certificate at a time and renew it themselves, so
	// every check sends them a request.
	if source == policy.IstioCA {
		switch {
		case h.observation.State == publish.Good && now.Before(d.state.due):
			return d.refresh(now, random)
		case d.state.pending != nil && d.state.pending.ID() == h.target.ID && now.Before(d.state.pendingUntil):
			return d.publish(d.state.pending)
		}
	}
	if now.Before(d.state.askAfter) {
		d.sourceErr = certs.ErrPending
		return d.refresh(now, random)
	}
	if minimum := policy.MinCertManagerTTL; source == policy.CertManager && h.options.CertTTL > 0 && h.options.CertTTL < minimum {
		d.reportLifetime(fmt.Sprintf("live %s: cert-manager issues certificates for an hour or more", minimum))
	}
	d.step = stepIssue
	return d
}

// requestOf is the request to a source of the holder's certificate.
func requestOf(h holder, source policy.Source, now time.Time) certs.Request {
	ttl := h.options.CertTTL
	if ttl == 0 {
		ttl = patches.DefaultCertTTL
		if limit := time.Duration(h.mesh.MaxCertTTL); limit > 0 && source == policy.IstioCA {
			ttl = min(ttl, limit)
		}
	}
	mirror := h.options.MirrorSecret
	if mirror == "" {
		mirror = "istio." + h.serviceAccount
	}
	return certs.Request{
		Namespace: h.target.Namespace, ServiceAccount: h.serviceAccount, Secret: h.target.Name, MirrorSecret: mirror,
		CAAddress: h.mesh.CAAddress, CAServerName: h.mesh.CAServerName,
		Key:           certs.KeySettings{SignatureAlgorithm: h.mesh.ECCSignatureAlgorithm, Curve: h.mesh.ECCCurve, RSASize: h.mesh.WorkloadRSAKeySize},
		TokenAudience: h.mesh.TokenAudience, ClusterID: h.mesh.ClusterID, TTL: ttl,
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
	d.sourceErr = err
	switch {
	case errors.Is(err, certs.ErrBusy):
		// The pauses do not grow: who asked first would wait longest.
		d.state.resetPending()
		d.state.askAfter = now.Add(pendingWait(0, d.state.lifeLeft(now), random))
		return d.refresh(now, random)
	case errors.Is(err, certs.ErrPending):
		if d.state.pendingSince.IsZero() {
			d.state.pendingSince = now
		}
		if now.Sub(d.state.pendingSince) > pendingReportAfter {
			d.effects.record(events.Warning(d.secret(), EventFailed, err.Error()))
		}
		d.state.askAfter = now.Add(pendingWait(d.state.asks, d.state.lifeLeft(now), random))
		d.state.asks++
		return d.refresh(now, random)
	case err != nil:
		reason := EventFailed
		if certs.ReasonOf(err) != "" {
			reason = EventRejected
			d.effects.reject(err)
		}
		d.effects.record(events.Warning(d.secret(), reason, err.Error()))
		if former := policy.Source(d.holder.observation.Source); errors.Is(err, certs.ErrNotConfigured) && leavesObjects(former) {
			d.state.leftover.note(former)
		}
		return d.refresh(now, random)
	}
	d.state.resetPending()
	if d.state.leftover.source == d.source {
		d.state.leftover = leftover{} // it is used again
	}
	if d.source == policy.IstioCA {
		d.effects.record(events.Normal(d.secret(), EventIssued, bundle.String()))
		d.reportShorterLife(bundle)
	}
	return d.publish(bundle)
}

// reportShorterLife reports a certificate of istiod that does not live as long as an
// annotation asks for.
func (d *secretDecision) reportShorterLife(b *certs.Bundle) {
	asked := d.holder.options.CertTTL
	life := b.NotAfter().Sub(b.Issued()).Round(time.Second)
	switch {
	case asked == 0 || life >= asked*9/10 && life <= asked*11/10:
		d.effects.resolve(d.secret(), EventLifetimeChanged)
	case b.Limit() != "":
		// The life is another one at each renewal.
		d.reportLifetime("end with " + b.Limit())
	default:
		d.reportLifetime(fmt.Sprintf("live %s: istiod refuses the lifetime; its maximum is MAX_WORKLOAD_CERT_TTL", life))
	}
}

// reportLifetime reports that certificates do not live as long as an annotation asks
// for. fact says how long they live, and why.
func (d *secretDecision) reportLifetime(fact string) {
	d.effects.record(events.Warning(d.secret(), EventLifetimeChanged, fmt.Sprintf("%s: %s asks for certificates that live %s, and they %s",
		d.secret().Name, policy.CertTTLKey, d.holder.options.CertTTL, fact)))
}

// publish has a new certificate published.
func (d secretDecision) publish(bundle *certs.Bundle) secretDecision {
	d.step, d.bundle, d.rule = stepPublish, bundle, publish.WhenNewer
	d.target = d.holder.target
	d.target.Source = string(d.source)
	return d
}
