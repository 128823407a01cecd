package controller

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// tlsContext is Emissary's description of how to speak TLS to an upstream.
var tlsContext = resource{
	GroupVersionResource: schema.GroupVersionResource{Group: "getambassador.io", Version: "v3alpha1", Resource: "tlscontexts"},
	kind:                 "TLSContext", name: "istio-upstream", optional: true,
}

// RootsSuffix follows a Secret's name in the name of the Secret that holds the
// mesh's roots alone, for a TLSContext's ca_secret.
const RootsSuffix = "-roots"

// keepTLSContext keeps the TLSContext of a namespace that asks for one, where
// Emissary's kinds exist.
func (r *reconciler) keepTLSContext(ctx context.Context, p *place, options policy.Options, claims []claim) error {
	if !options.TLSContext || len(claims) == 0 {
		return r.notWanted(ctx, p, tlsContext)
	}
	name := options.SecretName
	spec := map[string]any{
		"secret":         name,
		"alpn_protocols": "istio",
		// A dot in a Secret's name must not be taken for a namespace.
		"secret_namespacing": false,
	}
	if files := slices.ContainsFunc(claims, func(c claim) bool { return c.options.Delivery == policy.DeliveryFiles }); files {
		// From files Emissary takes key and chain alone, and would verify nothing.
		if ready, err := r.keepRoots(ctx, p, name); err != nil || !ready {
			return err
		}
		spec["ca_secret"] = name + RootsSuffix
	}
	if ids := ambassadorIDs(claims); len(ids) > 0 {
		spec["ambassador_id"] = ids
	}
	return r.own(ctx, p, tlsContext, map[string]any{"spec": spec})
}

// ambassadorIDs are those of the edges, nil when none has one: an Emissary
// ignores what does not name its own.
func ambassadorIDs(claims []claim) []any {
	var ids []string
	for _, c := range claims {
		ids = append(ids, c.ambassadorIDs...)
	}
	slices.Sort(ids)
	var out []any
	for _, id := range slices.Compact(ids) {
		out = append(out, id)
	}
	return out
}

// keepRoots keeps the Secret of the roots; false while they are not known.
func (r *reconciler) keepRoots(ctx context.Context, p *place, secret string) (bool, error) {
	k, ok := p.kept[secret]
	if !ok || k.state != publish.Good {
		return false, nil
	}
	name, roots := secret+RootsSuffix, k.roots.Value()
	if p.applied[name] == roots {
		return true, nil
	}
	current, err := r.Secrets.Get(ctx, p.namespace, name)
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return false, fmt.Errorf("read secret %s/%s: %w", p.namespace, name, err)
	case err == nil && !isOurs(current):
		r.tell(p, aboutSecret(p.namespace, name), corev1.EventTypeWarning, EventConflict,
			"the Secret is not Isthmus' and is left as it is, so no TLSContext can name it; delete it, or ask for none")
		return false, nil
	}
	wanted := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: name, Labels: map[string]string{policy.ManagedByLabel: policy.ManagedBy}},
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{"tls.crt": []byte(roots)},
	}
	if _, err := r.Secrets.Apply(ctx, wanted, true); err != nil {
		return false, err
	}
	p.applied[name] = roots
	return true, nil
}

// removeTLSContext takes back TLSContext and roots.
func (r *reconciler) removeTLSContext(ctx context.Context, namespace string) error {
	if err := r.disown(ctx, namespace, tlsContext); err != nil {
		return err
	}
	for _, name := range r.Settings.SecretNames {
		if err := r.removeSecret(ctx, namespace, name+RootsSuffix); err != nil {
			return err
		}
	}
	return nil
}
