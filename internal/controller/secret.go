package controller

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

// checkSecret observes a Secret, decides, acts, and returns the time of the next
// check.
func (r *reconciler) checkSecret(ctx context.Context, s *namespaceState, name string, claims []claim) (time.Time, error) {
	state := r.secretState(s, name)
	o := r.observeSecret(ctx, s.name, name, claims)
	d := takeSecretSteps(decideSecret(o, *state, r.rules, r.Clock.Now(), r.Random), secretSteps{
		now: r.Clock.Now, random: r.Random,
		apply: func(d secretDecision) {
			*state = d.state
			r.apply(s, d)
		},
		issue:   func(d secretDecision) (*certs.Bundle, error) { return r.issue(ctx, d) },
		publish: func(d secretDecision) (publish.Outcome, error) { return r.publish(ctx, d, o.secret) },
		remove:  func(d secretDecision) error { return r.removeFrom(ctx, d) },
	})
	return d.next, d.err
}

// observeSecret reads a Secret, the mesh's roots, and the settings of the revisions
// that the claims name.
func (r *reconciler) observeSecret(ctx context.Context, namespace, name string, claims []claim) secretObservation {
	o := secretObservation{namespace: namespace, name: name, claims: claims, mesh: map[string]meshSettings{}, interval: r.checkInterval(), leafSpread: r.leafSpread(), labels: r.labels()}
	secret, err := r.Secrets.Get(ctx, namespace, name)
	switch {
	case err == nil:
		o.secret = secret
	case !apierrors.IsNotFound(err):
		o.readErr = err
		return o
	}
	o.roots, o.rootsErr = r.Roots.Roots()
	for _, c := range claims {
		if _, ok := o.mesh[c.options.Revision]; !ok {
			mesh, err := r.Mesh(c.options.Revision)
			o.mesh[c.options.Revision] = meshSettings{Mesh: mesh, err: err}
		}
	}
	return o
}

// labels are those of every Secret that the controller keeps. They are never nil, which
// would keep the labels of an earlier setting.
func (r *reconciler) labels() map[string]string {
	if r.rules.labels == nil {
		return map[string]string{}
	}
	return r.rules.labels
}

// issue sends the request to the source.
func (r *reconciler) issue(ctx context.Context, d secretDecision) (*certs.Bundle, error) {
	bundle, err := r.Sources[d.source].Bundle(ctx, d.request)
	r.setWaiting(d.request.Namespace, err != nil)
	if errors.Is(err, certs.ErrPending) {
		log.FromContext(ctx).V(1).Info("certificate is not issued yet", "secret", d.request.Secret, "why", err.Error())
	}
	return bundle, err
}

// publish writes the Secret. current is the Secret as it was read; nil when there
// was none.
func (r *reconciler) publish(ctx context.Context, d secretDecision, current *corev1.Secret) (publish.Outcome, error) {
	publisher := &publish.Publisher{Secrets: &readOnce{Secrets: r.Secrets, current: current}, Now: r.Clock.Now, RenewBy: d.renewBy}
	outcome, err := publisher.Publish(ctx, d.target, d.bundle, d.rule)
	if outcome.Result == publish.Published && err == nil {
		log.FromContext(ctx).Info("published", "secret", d.holder.target.Name, "bundle", outcome.Observation.Bundle, "cause", outcome.Cause, "source", d.target.Source)
	}
	return outcome, err
}

// removeFrom removes what the former source of a Secret left in the cluster.
func (r *reconciler) removeFrom(ctx context.Context, d secretDecision) error {
	remover, ok := r.Sources[d.formerSource].(Remover)
	if !ok {
		return nil
	}
	err := remover.Remove(ctx, d.holder.target.Namespace, d.holder.target.Name)
	if err != nil {
		log.FromContext(ctx).Error(err, "what the former source created stays", "secret", d.holder.target.Name, "source", d.formerSource)
	}
	return err
}

// apply updates the metrics and records the Events of a decision.
func (r *reconciler) apply(s *namespaceState, d secretDecision) {
	e := d.effects
	for _, result := range e.results {
		r.metrics.countResult(result)
	}
	for _, reason := range e.rejected {
		r.metrics.countRejection(reason)
	}
	if e.formerTarget != nil {
		r.metrics.deleteSecret(*e.formerTarget)
	}
	if e.isObserved {
		r.metrics.setSecret(d.holder.target, d.holder.observation)
	}
	if e.isPublished {
		r.metrics.setLastSuccess(r.Clock.Now())
	}
	for _, change := range e.events {
		if change.isResolved {
			s.events.Resolve(change.Regarding, change.Reason)
			continue
		}
		s.events.Record(change.Event)
	}
}

// readOnce answers a publisher's first read with the Secret that was just read: a
// write carries that resourceVersion. After a conflict the Secret is read from the
// API server.
type readOnce struct {
	Secrets
	// current is nil when there is no Secret.
	current *corev1.Secret
	isRead  bool
}

// Get implements publish.Secrets.
func (o *readOnce) Get(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	if o.isRead {
		return o.Secrets.Get(ctx, namespace, name)
	}
	o.isRead = true
	if o.current == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
	}
	return o.current, nil
}
