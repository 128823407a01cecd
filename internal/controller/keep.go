package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// kept is what is remembered of one Secret between two looks. There are
// thousands, so it holds on to no Secret and, but for pending, no certificate.
type kept struct {
	// pending was issued and could not be published yet. It is worth trying
	// again until pendingUntil, half of its life: no need to trouble the CA.
	pending      *certs.Bundle
	pendingUntil time.Time
	// asked is since when a source that has begun is pending.
	asked time.Time
	// state, trouble and renewAfter are what stood there at the last look.
	state      publish.State
	trouble    string
	renewAfter time.Time
	// roots are those of the last good bundle, as PEM: the same for all Secrets.
	roots unique.Handle[string]
	// target is for whom it was kept, without roots.
	target publish.Target
	// due is when the bundle is to be replaced, spread a little.
	due time.Time
}

// remember notes what stands there.
func (k *kept) remember(t publish.Target, s publish.Observation) {
	t.Roots = nil
	k.target, k.state, k.trouble, k.renewAfter = t, s.State, "", s.RenewAfter
	if s.Err != nil {
		k.trouble = s.Err.Error()
	}
	if s.State == publish.Good {
		k.roots = unique.Make(string(s.Bundle.Roots()))
	}
}

func (k *kept) wait(b *certs.Bundle, now time.Time) {
	if b == nil || k.pending != nil && k.pending.Serial() == b.Serial() {
		return
	}
	k.pending, k.pendingUntil = b, now.Add(b.NotAfter().Sub(now)/2)
}

// keep makes one Secret true and says when to look at it again.
func (r *reconciler) keep(ctx context.Context, p *place, secret string, claims []claim) (time.Time, error) {
	k := r.remembered(p, secret)
	look := r.nextLook(k)
	current, err := r.Secrets.Get(ctx, p.namespace, secret)
	if err != nil && !apierrors.IsNotFound(err) {
		r.metrics.publish(publish.Failed)
		return time.Time{}, fmt.Errorf("read secret %s/%s: %w", p.namespace, secret, err)
	}
	if err != nil {
		current = nil
	}
	w, err := r.choose(p, secret, current, claims)
	if err != nil {
		// Without roots or settings nothing can be judged, and asking again soon
		// does not bring them.
		r.tell(p, aboutSecret(p.namespace, secret), corev1.EventTypeWarning, EventFailed, err.Error())
		return look, nil
	}
	r.disappoint(p, secret, w, claims)
	r.notice(p, secret, k, w)
	switch w.standing.State {
	case publish.Foreign, publish.Immutable, publish.OtherIdentity:
		k.pending = nil
		r.refused(p, secret, w)
		return look, nil
	}
	p.calm(aboutSecret(p.namespace, secret), EventConflict)
	if w.source == policy.Agent {
		return look, nil // written from inside the pod
	}
	next, err := r.renew(ctx, p, k, w, current)
	if look.Before(next) || !next.After(r.Clock.Now()) {
		next = look // what is due and was not delivered is asked for again then
	}
	return next, err
}

// nextLook is a period away. The first is spread widely: thousands of Secrets
// that were first seen within a minute must not come back all at once.
func (r *reconciler) nextLook(k *kept) time.Time {
	fraction := 0.1
	if k.target.Name == "" {
		fraction = 0.5
	}
	return r.Clock.Now().Add(spread(r.lookEvery(), fraction))
}

func (r *reconciler) remembered(p *place, secret string) *kept {
	k, ok := p.kept[secret]
	if !ok {
		k = &kept{}
		p.kept[secret] = k
		r.mu.Lock()
		r.secrets++
		r.mu.Unlock()
	}
	return k
}

// drop forgets the Secrets that nobody claims any more. They stay as they are:
// the next pod may come any moment, and will find them, renewed if need be.
func (r *reconciler) drop(p *place, claimed map[string][]claim) {
	for name, k := range p.kept {
		if _, ok := claimed[name]; ok {
			continue
		}
		delete(p.kept, name)
		r.metrics.dropSecret(k.target)
		r.mu.Lock()
		r.secrets--
		r.mu.Unlock()
	}
}

// winner is the claim that a Secret is kept for, and what stands there judged
// by its identity.
type winner struct {
	claim
	source   policy.Source
	mesh     patches.Mesh
	target   publish.Target
	standing publish.Observation
}

// choose finds for whom a Secret is kept when several service accounts want it:
// for the one whose identity it holds, or held before it expired, was damaged or
// deleted; else for the first. So there is never a war of writes, and no edge
// loses its Secret to another for a moment's trouble.
func (r *reconciler) choose(p *place, secret string, current *corev1.Secret, claims []claim) (winner, error) {
	roots, err := r.Roots.Roots()
	if err != nil {
		return winner{}, fmt.Errorf("roots of the mesh: %w", err)
	}
	before := p.kept[secret].target.ID.String()
	if current != nil && current.Annotations[policy.SPIFFEIDKey] != "" {
		before = current.Annotations[policy.SPIFFEIDKey]
	}
	var first winner
	tried := map[string]bool{}
	for _, c := range claims {
		if tried[c.serviceAccount] {
			continue
		}
		tried[c.serviceAccount] = true
		mesh, err := r.Mesh(c.options.Revision)
		if err != nil {
			return winner{}, err
		}
		id, err := certs.Identity(mesh.TrustDomain, p.namespace, c.serviceAccount)
		if err != nil {
			return winner{}, err
		}
		source := sourceOf(claims)
		w := winner{claim: c, source: source, mesh: mesh, target: publish.Target{
			Namespace: p.namespace, Name: secret, ID: id, Source: string(source), Roots: roots,
		}}
		w.standing = publish.Inspect(current, w.target, r.Clock.Now())
		if w.standing.State == publish.Good {
			return w, nil
		}
		if first.target.Name == "" || id.String() == before {
			first = w
		}
	}
	return first, nil
}

// disappoint tells the pods of the other service accounts that the Secret is not
// theirs.
func (r *reconciler) disappoint(p *place, secret string, w winner, claims []claim) {
	for _, c := range claims {
		if c.serviceAccount == w.serviceAccount || c.uid == "" {
			continue
		}
		r.metrics.publish(publish.RefusedIdentity)
		o := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: c.pod.Namespace, Name: c.pod.Name, UID: c.uid}
		r.tell(p, o, corev1.EventTypeWarning, EventConflict, fmt.Sprintf(
			"secret %s is kept for service account %s, so service account %s gets none; give one of the two another name with annotation %s",
			secret, w.serviceAccount, c.serviceAccount, policy.SecretNameKey))
	}
}

// notice brings metrics and Events up to date with what stands in the Secret.
func (r *reconciler) notice(p *place, secret string, k *kept, w winner) {
	state, trouble, renewAfter := k.state, k.trouble, k.renewAfter
	if k.target.Name != "" && (k.target.ID != w.target.ID || k.target.Source != w.target.Source) {
		r.metrics.dropSecret(k.target)
	}
	k.remember(w.target, w.standing)
	r.metrics.secret(w.target, w.standing)
	o := aboutSecret(p.namespace, secret)
	switch w.standing.State {
	case publish.Bad:
		if state != publish.Bad || trouble != k.trouble {
			r.metrics.reject(w.standing.Err)
		}
		r.tell(p, o, corev1.EventTypeWarning, EventRejected, "what stands in the Secret: "+w.standing.Err.Error())
	case publish.Good:
		p.calm(o, EventRejected, EventFailed)
		if k.due.IsZero() || !renewAfter.Equal(w.standing.RenewAfter) {
			rest := w.standing.Bundle.NotAfter().Sub(w.standing.RenewAfter)
			k.due = w.standing.RenewAfter.Add(spread(rest/20, 1)) // up to a tenth of the rest later
		}
		if w.standing.RootsDiffer {
			r.tell(p, o, corev1.EventTypeNormal, EventRootChanged, "the mesh's roots changed; the Secret follows")
		}
	}
}

// refusals are the results of not writing.
var refusals = map[publish.State]publish.Result{
	publish.Foreign: publish.RefusedForeign, publish.OtherIdentity: publish.RefusedIdentity, publish.Immutable: publish.RefusedImmutable,
}

// refused reports a Secret that may not be written, and stays so until somebody
// changes it.
func (r *reconciler) refused(p *place, secret string, w winner) {
	r.metrics.publish(refusals[w.standing.State])
	r.tell(p, aboutSecret(p.namespace, secret), corev1.EventTypeWarning, EventConflict, w.standing.Err.Error())
}

// renew asks the source when something is due, and publishes. It returns when
// something will be due next.
func (r *reconciler) renew(ctx context.Context, p *place, k *kept, w winner, current *corev1.Secret) (time.Time, error) {
	secret := w.target.Name
	o := aboutSecret(p.namespace, secret)
	bundle, err := r.obtain(ctx, p, k, w)
	switch {
	case errors.Is(err, certs.ErrPending):
		log.FromContext(ctx).V(1).Info("certificate is not issued yet", "secret", secret, "why", err.Error())
		if k.asked.IsZero() {
			k.asked = r.Clock.Now()
		}
		if r.Clock.Since(k.asked) > pendingTold {
			r.tell(p, o, corev1.EventTypeWarning, EventFailed, err.Error())
		}
		return r.Clock.Now().Add(spread(pendingRetry, 0.2)), nil
	case err != nil:
		reason := EventFailed
		if certs.ReasonOf(err) != "" {
			reason = EventRejected
			r.metrics.reject(err)
		}
		r.tell(p, o, corev1.EventTypeWarning, reason, err.Error())
		return time.Time{}, fmt.Errorf("certificate for secret %s/%s: %w", p.namespace, secret, err)
	case bundle == nil && !w.standing.RootsDiffer && !w.standing.LabelsDiffer:
		return k.due, nil
	}
	outcome, err := r.publisher(current).Publish(ctx, w.target, bundle, publish.WhenNewer)
	r.metrics.publish(outcome.Result)
	if err != nil {
		if outcome.Result == publish.Failed {
			k.wait(bundle, r.Clock.Now())
		}
		r.tell(p, o, corev1.EventTypeWarning, EventFailed, err.Error())
		return time.Time{}, err
	}
	k.pending, k.asked = nil, time.Time{}
	if outcome.Result != publish.Published {
		return k.due, nil
	}
	log.FromContext(ctx).Info("published", "secret", secret, "bundle", outcome.Observation.Bundle, "cause", outcome.Cause, "source", w.source)
	r.metrics.published(r.Clock.Now())
	p.calm(o, EventFailed, EventRejected, EventRootChanged)
	before := policy.Source(w.standing.Source)
	w.standing = outcome.Observation
	r.notice(p, secret, k, w)
	if remover, ok := r.Sources[before].(Remover); ok && before != w.source {
		if err := remover.Remove(ctx, p.namespace, secret); err != nil {
			return time.Time{}, err
		}
	}
	r.tell(p, o, corev1.EventTypeNormal, EventPublished, fmt.Sprintf("%s (%s)", outcome.Observation.Bundle, outcome.Cause))
	return k.due, nil
}

const (
	// pendingRetry is how soon a source that has begun is asked again.
	pendingRetry = 2 * time.Second
	// pendingTold is after how long it is worth an Event that there is nothing yet.
	pendingTold = time.Minute
)

func (r *reconciler) publisher(current *corev1.Secret) *publish.Publisher {
	return &publish.Publisher{Secrets: &readOnce{Secrets: r.Secrets, current: current}, Now: r.Clock.Now}
}

// readOnce spares a publisher its first read: what stands there was read a
// moment ago, and a write carries the version of it. After a conflict it is read
// anew.
type readOnce struct {
	Secrets
	// current is nil where there is no Secret.
	current *corev1.Secret
	given   bool
}

// Get implements publish.Secrets.
func (o *readOnce) Get(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	if o.given {
		return o.Secrets.Get(ctx, namespace, name)
	}
	o.given = true
	if o.current == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
	}
	return o.current, nil
}

// obtain returns what is to be published, nil when nothing is due.
func (r *reconciler) obtain(ctx context.Context, p *place, k *kept, w winner) (*certs.Bundle, error) {
	source, ok := r.Sources[w.source]
	if !ok {
		return nil, fmt.Errorf("source %s is not set up in this installation; choose another with annotation %s", w.source, policy.SourceKey)
	}
	request := r.request(p, w)
	if w.source == policy.Mirror && !slices.Contains(r.Settings.MirrorSecretNames, request.MirrorSecret) {
		return nil, fmt.Errorf("secret %s may not be mirrored; add it to the chart's value controller.mirrorSecretNames (%s), or name another with annotation %s",
			request.MirrorSecret, strings.Join(r.Settings.MirrorSecretNames, ", "), policy.MirrorSecretKey)
	}
	if w.source != policy.IstioCA {
		// They have one certificate at a time, and renew it by themselves.
		return source.Bundle(ctx, request)
	}
	if w.standing.State == publish.Good && r.Clock.Now().Before(k.due) {
		return nil, nil // neither is there
	}
	if k.pending != nil && k.pending.ID() == w.target.ID && r.Clock.Now().Before(k.pendingUntil) {
		return k.pending, nil
	}
	bundle, err := source.Bundle(ctx, request)
	if err == nil {
		r.tell(p, aboutSecret(p.namespace, w.target.Name), corev1.EventTypeNormal, EventIssued, bundle.String())
	}
	return bundle, err
}

// defaultTTL is asked of the CA when nobody says otherwise, as Istio's agent
// does (SECRET_TTL).
const defaultTTL = 24 * time.Hour

func (r *reconciler) request(p *place, w winner) certs.Request {
	ttl := w.options.CertTTL
	if ttl == 0 {
		ttl = defaultTTL
		if limit := time.Duration(w.mesh.MaxCertTTL); limit > 0 && w.source == policy.IstioCA {
			ttl = min(ttl, limit)
		}
	}
	mirror := w.options.MirrorSecret
	if mirror == "" {
		mirror = "istio." + w.serviceAccount
	}
	return certs.Request{
		Namespace: p.namespace, ServiceAccount: w.serviceAccount, Secret: w.target.Name, MirrorSecret: mirror,
		CAAddress: w.mesh.CAAddress, TokenAudience: w.mesh.TokenAudience, ClusterID: w.mesh.ClusterID, TTL: ttl,
		Want: certs.Want{ID: w.target.ID, Roots: w.target.Roots, Now: r.Clock.Now()},
	}
}
