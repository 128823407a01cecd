// Package certmanager is the source cert-manager: it keeps a Certificate for
// every Secret that is wanted, and takes what cert-manager issues out of a
// staging Secret. What it returns is checked like the certificate of any other
// source, so an issuer that the mesh does not trust publishes nothing.
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

// StagingSuffix follows a Secret's name in the name of the Secret that
// cert-manager writes.
const StagingSuffix = "-issued"

// IssuerValue is the chart's value that Options.Issuer comes from.
const IssuerValue = "controller.certManager.issuerRef"

// Secrets reads and deletes Secrets by name. publish.Client is one.
type Secrets interface {
	// Get returns the Secret, and an error that apierrors.IsNotFound knows
	// where there is none.
	Get(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Delete removes a Secret that is still the one that was read.
	Delete(ctx context.Context, namespace, name string, uid types.UID, resourceVersion string) error
}

// Options are what a source is made of.
type Options struct {
	// Dynamic reads, applies and deletes Certificates by name, and reads the
	// issuer. Nothing is listed or watched. Required.
	Dynamic dynamic.Interface
	// Secrets reads and deletes the staging Secrets. Required.
	Secrets Secrets
	// Issuer signs. The name is required; kind is Issuer by default, in the
	// edge's own namespace, and group cert-manager.io.
	Issuer cmmeta.IssuerReference
}

// The errors that are told apart, beside certs.ErrPending and *certs.Rejection.
var (
	// ErrNoIssuer: Options.Issuer has no name.
	ErrNoIssuer = errors.New("the source cert-manager needs an issuer: set the chart's value " + IssuerValue + ".name")
	// ErrNotInstalled: the API server has no Certificates.
	ErrNotInstalled = errors.New("cert-manager is not installed: no Certificate kind in cert-manager.io/v1")
	// ErrForeign: a Certificate or staging Secret of that name is someone else's.
	ErrForeign = errors.New("it belongs to someone else")
)

// Source is the source cert-manager. It has no state: every call looks.
type Source struct {
	dynamic dynamic.Interface
	secrets Secrets
	issuer  cmmeta.IssuerReference
}

// New makes a source. Where the issuer has no name that is the error of every
// Bundle, not of New: other namespaces may use other sources.
func New(o Options) (*Source, error) {
	if o.Dynamic == nil || o.Secrets == nil {
		return nil, errors.New("certmanager: a dynamic client and Secrets are required")
	}
	o.Issuer.Kind = cmp.Or(o.Issuer.Kind, cmapi.IssuerKind)
	o.Issuer.Group = cmp.Or(o.Issuer.Group, cmapi.SchemeGroupVersion.Group)
	return &Source{dynamic: o.Dynamic, secrets: o.Secrets, issuer: o.Issuer}, nil
}

// Bundle keeps the Certificate that r asks for and returns what was issued. It
// reads Certificate and staging Secret, and writes only when the Certificate is
// missing or differs.
//
// Until cert-manager has issued, the error is certs.ErrPending with what
// cert-manager says about it. What was issued and is no bundle is a
// *certs.Rejection.
func (s *Source) Bundle(ctx context.Context, r certs.Request) (*certs.Bundle, error) {
	if s.issuer.Name == "" {
		return nil, ErrNoIssuer
	}
	var certificate *cmapi.Certificate
	// cert-manager writes the status whenever it likes.
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() (err error) {
		certificate, err = s.keep(ctx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	secret, err := s.secrets.Get(ctx, r.Namespace, r.Secret+StagingSuffix)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: %s", certs.ErrPending, s.explain(ctx, certificate))
	}
	if err != nil {
		return nil, fmt.Errorf("read staging secret %s/%s: %w", r.Namespace, r.Secret+StagingSuffix, err)
	}
	bundle, err := s.judge(secret, r.Want)
	if err != nil && isIssuing(certificate) {
		return nil, fmt.Errorf("staging secret %s/%s: %w; %s", secret.Namespace, secret.Name, err, s.explain(ctx, certificate))
	}
	if err != nil {
		return nil, fmt.Errorf("staging secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	return bundle, nil
}

// judge makes a bundle of what was issued. Its ca.crt is the issuer's word about
// itself and no reason to trust it: peers verify by the mesh's roots alone.
func (s *Source) judge(secret *corev1.Secret, want certs.Want) (*certs.Bundle, error) {
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

// Remove deletes the Certificate of a Secret and its staging Secret, those that
// are ours. What is not there is no error. Without an issuer there is nothing to
// remove, nor, as the chart has it, the right to look.
func (s *Source) Remove(ctx context.Context, namespace, secret string) error {
	if s.issuer.Name == "" {
		return nil
	}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error { return s.remove(ctx, namespace, secret) })
}

func (s *Source) remove(ctx context.Context, namespace, secret string) error {
	certificate, err := s.find(ctx, namespace, secret)
	switch {
	case err != nil && !errors.Is(err, ErrNotInstalled):
		return err
	case err == nil && certificate != nil && policy.IsManaged(certificate):
		// First, or cert-manager would write the Secret again.
		if err := s.delete(ctx, certificate); err != nil {
			return err
		}
	}
	staging, err := s.secrets.Get(ctx, namespace, secret+StagingSuffix)
	if apierrors.IsNotFound(err) || err == nil && !isStaging(staging, secret) {
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
