// Package mirror takes certificates from another Secret, whoever keeps it: an
// Istio up to 1.4, which wrote istio.<service account>, or a tool of the user's.
// It is a package of its own for its API types: they double the size of a
// program that needs nothing but internal/certs.
package mirror

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// Secrets reads Secrets. An error is one that apierrors.IsNotFound and
// apierrors.IsForbidden know.
type Secrets interface {
	Get(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Mirror is the source mirror. It keeps no state: whoever calls it when the
// Secret changes follows it.
type Mirror struct {
	Secrets Secrets
}

// Bundle reads the Secret that the request names, in either form that
// certs.FromSecret knows. An error names the Secret; it wraps a
// *certs.Rejection where the Secret holds no bundle, and says what to do where
// it cannot be read.
func (m *Mirror) Bundle(ctx context.Context, r certs.Request) (*certs.Bundle, error) {
	if r.MirrorSecret == r.Secret {
		return nil, fmt.Errorf("mirror: Secret %s/%s would mirror itself; name another one in isthmus.dev/mirror-secret", r.Namespace, r.Secret)
	}
	secret, err := m.Secrets.Get(ctx, r.Namespace, r.MirrorSecret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("mirror: there is no Secret %s/%s; create it, or name another one in isthmus.dev/mirror-secret: %w", r.Namespace, r.MirrorSecret, err)
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("mirror: Secret %s/%s must not be read; add its name to the chart's list of mirror names: %w", r.Namespace, r.MirrorSecret, err)
	case err != nil:
		return nil, fmt.Errorf("mirror: read Secret %s/%s: %w", r.Namespace, r.MirrorSecret, err)
	}
	material, err := certs.FromSecret(secret.Data)
	if err != nil {
		return nil, fmt.Errorf("mirror: Secret %s/%s: %w", r.Namespace, r.MirrorSecret, err)
	}
	b, err := certs.New(material, r.Want)
	if err != nil {
		return nil, fmt.Errorf("mirror: Secret %s/%s: %w", r.Namespace, r.MirrorSecret, err)
	}
	return b, nil
}
