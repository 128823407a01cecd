// Package mirror is the source mirror. It copies certificates from another Secret: one
// of Istio up to 1.4, which wrote istio.<service account>, or one of a user's tool.
// The package is separate from internal/certs because the Kubernetes API types double
// the size of a program that needs only internal/certs.
package mirror

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// Secrets reads Secrets. apierrors.IsNotFound and apierrors.IsForbidden have to
// recognize its errors. publish.Client implements it.
type Secrets interface {
	// Get returns the Secret.
	Get(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Mirror is the source mirror. It has no state: call Bundle whenever the Secret
// changes.
type Mirror struct {
	// Secrets reads the Secret to mirror. Required.
	Secrets Secrets
}

// Bundle returns the bundle in the Secret that the request names, in either form that
// certs.FromSecret knows. Errors name the Secret. If the Secret cannot be read, the
// error says what to do; if its content is invalid, the error wraps a
// *certs.Rejection.
func (m *Mirror) Bundle(ctx context.Context, r certs.Request) (*certs.Bundle, error) {
	if r.MirrorSecret == r.Secret {
		return nil, fmt.Errorf("mirror: secret %s/%s would mirror itself; choose another with isthmus.dev/mirror-secret", r.Namespace, r.Secret)
	}
	secret, err := m.Secrets.Get(ctx, r.Namespace, r.MirrorSecret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("mirror: secret %s/%s does not exist; create it, or choose another with isthmus.dev/mirror-secret: %w", r.Namespace, r.MirrorSecret, err)
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("mirror: secret %s/%s must not be read; add its name to the chart's value controller.mirrorSecretNames: %w", r.Namespace, r.MirrorSecret, err)
	case err != nil:
		return nil, fmt.Errorf("mirror: read secret %s/%s: %w", r.Namespace, r.MirrorSecret, err)
	}
	material, err := certs.FromSecret(secret.Data)
	if err != nil {
		return nil, fmt.Errorf("mirror: secret %s/%s: %w", r.Namespace, r.MirrorSecret, err)
	}
	b, err := certs.New(material, r.Want)
	if err != nil {
		return nil, fmt.Errorf("mirror: secret %s/%s: %w", r.Namespace, r.MirrorSecret, err)
	}
	return b, nil
}
