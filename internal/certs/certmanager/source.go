// Package certmanager is the source cert-manager. For every Secret it applies a
// Certificate, and reads what cert-manager issues from a staging Secret. It validates
// that like the certificate of any other source, so nothing is published from an
// issuer that the mesh does not trust.
package certmanager

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// StagingSuffix is appended to a Secret's name to get the name of the staging Secret,
// which cert-manager writes.
const StagingSuffix = "-issued"

// IssuerValue is the chart's value that sets Options.Issuer.
const IssuerValue = "controller.certManager.issuerRef"

// Secrets reads and deletes Secrets by name. publish.Client implements it.
type Secrets interface {
	// Get returns the Secret. If there is none, apierrors.IsNotFound is true of the
	// error.
	Get(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Delete deletes the Secret if it still has this UID and resourceVersion.
	Delete(ctx context.Context, namespace, name string, uid types.UID, resourceVersion string) error
}

// Options configure a Source.
type Options struct {
	// Dynamic reads, applies and deletes Certificates by name, and reads the
	// issuer. Nothing is listed or watched. Required.
	Dynamic dynamic.Interface
	// Secrets reads and deletes the staging Secrets. Required.
	Secrets Secrets
	// Issuer signs the certificates. Its name is required. Its kind is Issuer by
	// default, in the edge's namespace, and its group cert-manager.io.
	Issuer cmmeta.IssuerReference
}

// The errors that callers distinguish, besides certs.ErrPending and *certs.Rejection.
var (
	// ErrNoIssuer: Options.Issuer has no name.
	ErrNoIssuer = fmt.Errorf("the source cert-manager needs an issuer: set the chart's value %s.name (%w)", IssuerValue, certs.ErrNotConfigured)
	// ErrNotInstalled: the API server does not serve Certificates.
	ErrNotInstalled = errors.New("cert-manager is not installed: no Certificate kind in cert-manager.io/v1")
	// ErrForeign: a Certificate or staging Secret of that name is not managed by
	// Isthmus.
	ErrForeign = errors.New("it is not managed by Isthmus")
)

// Source is the source cert-manager. It has no state: every call reads the cluster.
type Source struct {
	dynamic dynamic.Interface
	secrets Secrets
	issuer  cmmeta.IssuerReference
}

// New returns a Source. An issuer without a name is an error of Bundle, not of New:
// the namespaces may all use other sources.
func New(o Options) (*Source, error) {
	if o.Dynamic == nil || o.Secrets == nil {
		return nil, errors.New("certmanager: a dynamic client and Secrets are required")
	}
	o.Issuer.Kind = cmp.Or(o.Issuer.Kind, cmapi.IssuerKind)
	o.Issuer.Group = cmp.Or(o.Issuer.Group, cmapi.SchemeGroupVersion.Group)
	return &Source{dynamic: o.Dynamic, secrets: o.Secrets, issuer: o.Issuer}, nil
}

// Bundle ensures the Certificate of a request and returns what was issued. It reads
// the Certificate and the staging Secret, and writes only when the Certificate is
// missing or differs.
//
// Until cert-manager has issued, the error wraps certs.ErrPending and contains
// cert-manager's conditions. If the issued certificate is invalid, the error wraps a
// *certs.Rejection.
func (s *Source) Bundle(ctx context.Context, r certs.Request) (*certs.Bundle, error) {
	if s.issuer.Name == "" {
		return nil, ErrNoIssuer
	}
	var certificate *cmapi.Certificate
	// cert-manager may write the status at any time.
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() (err error) {
		certificate, err = s.ensureCertificate(ctx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	secret, err := s.secrets.Get(ctx, r.Namespace, r.Secret+StagingSuffix)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: %s", certs.ErrPending, s.explainPending(ctx, certificate))
	}
	if err != nil {
		return nil, fmt.Errorf("read staging secret %s/%s: %w", r.Namespace, r.Secret+StagingSuffix, err)
	}
	bundle, err := s.validate(secret, r.Want)
	if err != nil && isIssuing(certificate) {
		return nil, fmt.Errorf("staging secret %s/%s: %w; %s", secret.Namespace, secret.Name, err, s.explainPending(ctx, certificate))
	}
	if err != nil {
		return nil, fmt.Errorf("staging secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	return bundle, nil
}

// validate returns the bundle that was issued. The issuer's own ca.crt is not trusted:
// peers verify with the mesh's roots only.
func (s *Source) validate(secret *corev1.Secret, want certs.Want) (*certs.Bundle, error) {
	material, err := certs.FromSecret(secret.Data)
	if err != nil {
		return nil, err
	}
	material.Roots = nil
	bundle, err := certs.New(material, want)
	if certs.ReasonOf(err) == certs.Untrusted {
		return nil, fmt.Errorf("%s signs with a CA that is not in istio-ca-root-cert: %w", s.issuerName(), err)
	}
	return bundle, err
}

// Remove deletes the Certificate and the staging Secret of a Secret, if they are
// managed by Isthmus. It is not an error if they do not exist. Without an issuer the
// chart grants no access to Certificates: nothing is tried, and the error names both.
func (s *Source) Remove(ctx context.Context, namespace, secret string) error {
	if s.issuer.Name == "" {
		return fmt.Errorf("certificate %s/%s and secret %[1]s/%[2]s%[3]s, unless somebody has deleted them: cert-manager goes on renewing them (%w)",
			namespace, secret, StagingSuffix, ErrNoIssuer)
	}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error { return s.remove(ctx, namespace, secret) })
}

func (s *Source) remove(ctx context.Context, namespace, secret string) error {
	certificate, err := s.findCertificate(ctx, namespace, secret)
	switch {
	case err != nil && !errors.Is(err, ErrNotInstalled):
		return err
	case err == nil && certificate != nil && policy.IsManaged(certificate):
		// Before the Secret, or cert-manager would write the Secret again.
		if err := s.deleteCertificate(ctx, certificate); err != nil {
			return err
		}
	}
	staging, err := s.secrets.Get(ctx, namespace, secret+StagingSuffix)
	if apierrors.IsNotFound(err) || err == nil && !isStagingSecret(staging, secret) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read staging secret %s/%s: %w", namespace, secret+StagingSuffix, err)
	}
	err = s.secrets.Delete(ctx, namespace, staging.Name, staging.UID, staging.ResourceVersion)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete staging secret %s/%s: %w", namespace, staging.Name, err)
	}
	return nil
}
