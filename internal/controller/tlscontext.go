package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// tlsContext is the kind of Emissary's object that configures TLS to an upstream.
var tlsContext = ownedKind{
	GroupVersionResource: schema.GroupVersionResource{Group: "getambassador.io", Version: "v3alpha1", Resource: "tlscontexts"},
	kind:                 "TLSContext", name: "istio-upstream", optional: true,
}

// reconcileTLSContext reconciles the TLSContext of a namespace, and the Secret of
// the roots that it refers to.
func (r *reconciler) reconcileTLSContext(ctx context.Context, s *namespaceState, options policy.Options, claims []claim) error {
	fields, roots := desiredTLSContext(options, claims)
	if roots != "" {
		if isApplied, err := r.reconcileRoots(ctx, s, options.SecretName); err != nil || !isApplied {
			return err
		}
	}
	return r.reconcileObject(ctx, s, tlsContext, fields)
}

// reconcileRoots observes the Secret of the roots that belongs to a Secret, decides
// and acts. It returns false while the roots are unknown, or when the Secret is not
// managed by Isthmus.
func (r *reconciler) reconcileRoots(ctx context.Context, s *namespaceState, secret string) (isApplied bool, err error) {
	name := secret + policy.RootsSuffix
	o := ownedObservation{wanted: desiredRoots(s.secrets[secret]), rescanned: s.rescanned}
	if o.wanted == "" {
		return false, nil
	}
	o.applied, o.isKnown = s.applied[name]
	for {
		switch action := decideOwned(o); action {
		case ownedKeep:
			return true, nil
		case ownedObserve:
			current, err := r.Secrets.Get(ctx, s.name, name)
			if o.current, err = ownershipOf(current, err); err != nil {
				return false, fmt.Errorf("read secret %s/%s: %w", s.name, name, err)
			}
		case ownedReport:
			s.events.Record(events.Warning(secretReference(s.name, name), EventConflict,
				"the Secret is not managed by Isthmus and is left as it is, so no TLSContext can name it; delete it, or do not request a TLSContext"))
			return false, nil
		case ownedApply:
			wanted := &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: name, Labels: map[string]string{policy.ManagedByLabel: policy.ManagedBy}},
				Type:       corev1.SecretTypeOpaque,
				Data:       map[string][]byte{"tls.crt": []byte(o.wanted)},
			}
			if _, err := r.Secrets.Apply(ctx, wanted, true); err != nil {
				return false, err
			}
			s.applied[name] = o.wanted
			return true, nil
		default:
			return false, fmt.Errorf("secret %s/%s: unexpected action %q", s.name, name, action)
		}
	}
}

// deleteTLSContext deletes the TLSContext and the Secrets of the roots.
func (r *reconciler) deleteTLSContext(ctx context.Context, namespace string) error {
	if err := r.deleteOwned(ctx, namespace, tlsContext); err != nil {
		return err
	}
	for _, name := range r.Settings.SecretNames {
		if err := r.deleteSecret(ctx, namespace, name+policy.RootsSuffix); err != nil {
			return err
		}
	}
	return nil
}
