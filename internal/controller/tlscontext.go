package controller

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// reconcileContexts reconciles the Secrets of the roots and the TLSContexts of a
// namespace.
func (r *reconciler) reconcileContexts(ctx context.Context, s *namespaceState, options policy.Options, claims []claim) error {
	for _, secret := range r.Settings.SecretNames {
		isNeeded := needsRoots(secret, claims, options)
		if !isNeeded && len(s.unclear) > 0 {
			continue // an unclear pod may need them
		}
		if err := r.reconcileRoots(ctx, s, secret, isNeeded); err != nil {
			return err
		}
	}
	desire := desiredContext(s.name, options, claims, accountOf(s.secrets[options.SecretName]), len(s.unclear) > 0)
	for _, e := range desire.events {
		s.events.Record(e)
	}
	if desire.isUnknown {
		return nil
	}
	isKnown, isMissing := r.contexts.state()
	if len(s.unclear) > 0 {
		r.keepIDs(s, &desire)
	}
	if isKnown || len(s.unclear) == 0 {
		r.contexts.setWide(s.name, desire)
	}
	switch {
	case !isKnown || isMissing && options.TLSContext != "":
		if isMissing {
			k := contextKind(options.TLSContext)
			s.events.Record(events.Warning(k.reference(s.name), EventFailed,
				fmt.Sprintf("%s was requested, but this cluster has no %s", k, k.GroupResource())))
		}
		r.contexts.wait(s.name)
		return nil
	case desire.name != "" && s.applied[desire.secret+policy.RootsSuffix] == "":
		return nil // the TLSContext names a Secret that is not there yet, or is someone else's
	}
	var decisions []contextDecision
	for _, name := range r.Settings.TLSContextNames {
		if name != desire.name {
			for _, name := range contextNames([]string{name}) {
				if err := r.removeContext(ctx, s, contextKind(name)); err != nil {
					return err
				}
			}
			continue
		}
		for _, c := range []struct{ name, alpn string }{{name, r.Settings.TLSContextALPN}, {name + policy.TCPSuffix, "istio"}} {
			d, err := r.reconcileContext(ctx, s, desire, c.name, c.alpn)
			if err != nil {
				return err
			}
			decisions = append(decisions, d)
		}
	}
	s.resolveClashes(decisions)
	return nil
}

// keepIDs adds to a desire the IDs that the namespace's TLSContexts of that name have.
func (r *reconciler) keepIDs(s *namespaceState, desire *contextDesire) {
	for _, name := range contextNames([]string{desire.name}) {
		if current, ok := r.contexts.get(s.name, name); ok && current.isManaged {
			desire.keep(current.ids)
		}
	}
}

// accountOf is the service account that a Secret serves; empty while that is unknown.
func accountOf(s *secretState) string {
	if s == nil {
		return ""
	}
	return s.account
}

// reconcileContext reconciles a TLSContext that is desired, or its companion.
func (r *reconciler) reconcileContext(ctx context.Context, s *namespaceState, desire contextDesire, name, alpn string) (contextDecision, error) {
	k := contextKind(name)
	wanted := content{spec: desire.spec(alpn), labels: inject.ObjectLabels(r.Settings.SecretLabels)}
	o, d := r.contexts.decide(contextObservation{desire: desire, name: name, namespace: s.name, rescanned: s.rescanned}, wanted)
	s.reportClashes(o, d)
	switch d.action {
	case contextApply:
		return d, r.applyContext(ctx, s, k, o, wanted)
	case contextKeep:
		r.contexts.wait(s.name)
		return d, nil
	case contextWithdraw:
		r.contexts.wait(s.name)
		return d, r.removeContext(ctx, s, k)
	case contextReport:
		s.events.Record(events.Warning(k.reference(s.name), EventConflict, fmt.Sprintf(
			"%s is not managed by Isthmus (it has no label %s=%s) and is left as it is; delete it, or do not request it", k, policy.ManagedByLabel, policy.ManagedBy)))
		return d, nil
	default:
		return d, fmt.Errorf("%s in namespace %s: unexpected action %q", k, s.name, d.action)
	}
}

// reportClashes records the clashes of a TLSContext, once for as long as they last.
func (s *namespaceState) reportClashes(o contextObservation, d contextDecision) {
	for _, e := range clashEvents(o, d) {
		s.events.Record(e)
		s.clashing[e.Regarding.Namespace] = true
	}
}

// resolveClashes forgets the clashes that have ended, so that they are recorded when
// they come back. decisions are those on all TLSContexts of the namespace: one and its
// companion share the Events.
func (s *namespaceState) resolveClashes(decisions []contextDecision) {
	lasting := map[string]bool{}
	for _, d := range decisions {
		if d.action == contextKeep && len(d.clashes) == 0 {
			return // the edges of another namespace are unknown yet
		}
		for _, clash := range d.clashes {
			lasting[s.name], lasting[clash.other.namespace] = true, true
		}
	}
	for namespace := range s.clashing {
		if !lasting[namespace] {
			s.events.Resolve(namespaceReference(namespace), EventContextClash)
			delete(s.clashing, namespace)
		}
	}
}

// applyContext applies a TLSContext, unless it is known to be applied and the cluster
// has it.
func (r *reconciler) applyContext(ctx context.Context, s *namespaceState, k ownedKind, o contextObservation, wanted content) error {
	text, err := json.Marshal(wanted.spec)
	if err != nil {
		return err
	}
	if o.current != nil && s.applied[k.name] == string(text) && o.current.content.contains(wanted) {
		return nil
	}
	if err := r.applyOwned(ctx, s, k, map[string]any{"spec": wanted.spec}, wanted.labels); err != nil {
		if o.current == nil {
			r.contexts.remove(s.name, k.name)
		}
		return err
	}
	s.applied[k.name] = string(text)
	return nil
}

// removeContext deletes a TLSContext that Isthmus manages.
func (r *reconciler) removeContext(ctx context.Context, s *namespaceState, k ownedKind) error {
	current, ok := r.contexts.get(s.name, k.name)
	if !ok || !current.isManaged {
		return nil
	}
	if err := r.deleteOwned(ctx, s.name, k); err != nil {
		return err
	}
	r.contexts.remove(s.name, k.name)
	delete(s.applied, k.name)
	return nil
}

// reconcileRoots observes the Secret of the roots that belongs to a Secret, decides
// and acts. While the roots are unknown, the Secret stays as it is.
func (r *reconciler) reconcileRoots(ctx context.Context, s *namespaceState, secret string, isNeeded bool) error {
	name := secret + policy.RootsSuffix
	o := ownedObservation{rescanned: s.rescanned}
	if isNeeded {
		if o.wanted = desiredRoots(s.secrets[secret]); o.wanted == "" {
			return nil
		}
	}
	o.applied, o.isKnown = s.applied[name]
	var current *corev1.Secret
	for {
		switch action := decideOwned(o); action {
		case ownedKeep:
			return nil
		case ownedObserve:
			var err error
			current, err = r.Secrets.Get(ctx, s.name, name)
			if o.current, err = ownershipOf(current, err); err != nil {
				return fmt.Errorf("read secret %s/%s: %w", s.name, name, err)
			}
		case ownedReport:
			s.events.Record(events.Warning(secretReference(s.name, name), EventConflict,
				"the Secret is not managed by Isthmus and is left as it is, so no TLSContext of Isthmus can name it; delete it, and Isthmus writes the mesh's roots into it"))
			return nil
		case ownedApply:
			if _, err := r.Secrets.Apply(ctx, r.rootsSecret(s.name, name, o.wanted, current), true); err != nil {
				return err
			}
			s.events.Resolve(secretReference(s.name, name), EventConflict)
			s.applied[name] = o.wanted
			return nil
		case ownedDelete:
			if err := r.deleteSecret(ctx, s.name, name); err != nil {
				return err
			}
			s.applied[name] = ""
			return nil
		case ownedForget:
			s.applied[name] = ""
			return nil
		default:
			return fmt.Errorf("secret %s/%s: unexpected action %q", s.name, name, action)
		}
	}
}

// rootsSecret is the Secret of the roots: in tls.crt for a ca_secret of Emissary, and
// in ca.crt for everyone else. current is nil when there is none; a type cannot be
// changed.
func (r *reconciler) rootsSecret(namespace, name, roots string, current *corev1.Secret) *corev1.Secret {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: inject.ObjectLabels(r.Settings.SecretLabels)},
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{corev1.TLSCertKey: []byte(roots), corev1.ServiceAccountRootCAKey: []byte(roots)},
	}
	if current != nil && current.Type != "" {
		secret.Type = current.Type
	}
	return secret
}

// deleteContexts deletes the TLSContexts and the Secrets of the roots.
func (r *reconciler) deleteContexts(ctx context.Context, namespace string) error {
	for _, name := range contextNames(r.Settings.TLSContextNames) {
		if err := r.deleteOwned(ctx, namespace, contextKind(name)); err != nil {
			return err
		}
		if current, ok := r.contexts.get(namespace, name); ok && current.isManaged {
			r.contexts.remove(namespace, name)
		}
	}
	for _, name := range r.Settings.SecretNames {
		if err := r.deleteSecret(ctx, namespace, name+policy.RootsSuffix); err != nil {
			return err
		}
	}
	return nil
}
