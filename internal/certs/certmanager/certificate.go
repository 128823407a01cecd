package certmanager

import (
	"context"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// renewBeforePercentage makes cert-manager renew when two thirds of a lifetime are
// left, for any lifetime that the issuer grants. (Its controllers read the field as
// the percentage that is left: desiredRenewalTime in pkg/util/pki of v1.21.)
// cert-manager before 1.16 does not have the field and refuses the Certificate.
const renewBeforePercentage = 67

// lifetime returns the lifetime to request from cert-manager. Its webhook refuses less
// than an hour, so shorter lifetimes become an hour; the controller reports that. Zero
// leaves the lifetime to cert-manager, whose default is 90 days.
func lifetime(ttl time.Duration) time.Duration {
	if ttl == 0 {
		return 0
	}
	return max(ttl, policy.MinCertManagerTTL)
}

// desiredCertificate is the Certificate for a request, with a key of an algorithm.
func (s *Source) desiredCertificate(r certs.Request, key certs.KeyAlgorithm) *cmapi.Certificate {
	labels := map[string]string{policy.ManagedByLabel: policy.ManagedBy}
	c := &cmapi.Certificate{
		TypeMeta:   metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateKind},
		ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.Secret, Labels: labels},
		Spec: cmapi.CertificateSpec{
			SecretName:     r.Secret + StagingSuffix,
			SecretTemplate: &cmapi.CertificateSecretTemplate{Labels: labels},
			IssuerRef:      s.issuer,
			URIs:           []string{r.Want.ID.String()},
			// Key encipherment is for RSA key exchange, which TLS 1.3 does not have.
			Usages:                []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageClientAuth, cmapi.UsageServerAuth},
			PrivateKey:            &cmapi.CertificatePrivateKey{RotationPolicy: cmapi.RotationPolicyAlways, Algorithm: cmapi.PrivateKeyAlgorithm(key.Type), Size: key.Size},
			RenewBeforePercentage: ptr.To[int32](renewBeforePercentage),
			RevisionHistoryLimit:  ptr.To[int32](1),
		},
	}
	if ttl := lifetime(r.TTL); ttl != 0 {
		c.Spec.Duration = &metav1.Duration{Duration: ttl}
	}
	return c
}

// ensureCertificate creates or updates the Certificate of a request, and returns it
// as the API server has it.
func (s *Source) ensureCertificate(ctx context.Context, r certs.Request) (*cmapi.Certificate, error) {
	current, err := s.findCertificate(ctx, r.Namespace, r.Secret)
	if err != nil {
		return nil, err
	}
	key, err := r.Key.Algorithm()
	if err != nil {
		return nil, err
	}
	desired := s.desiredCertificate(r, key)
	switch {
	case current == nil:
		// cert-manager overwrites any Secret that has the name of the staging Secret.
		if err := s.checkStagingSecret(ctx, r.Namespace, r.Secret); err != nil {
			return nil, err
		}
		return s.applyCertificate(ctx, desired, false)
	case !policy.IsManaged(current):
		return nil, foreignError("certificate", current)
	case specDiffers(desired, current):
		desired.ResourceVersion = current.ResourceVersion
		return s.applyCertificate(ctx, desired, true)
	}
	return current, nil
}

// checkStagingSecret returns an error unless cert-manager may write the staging
// Secret: there is none, or cert-manager wrote it for our Certificate.
func (s *Source) checkStagingSecret(ctx context.Context, namespace, secret string) error {
	staging, err := s.secrets.Get(ctx, namespace, secret+StagingSuffix)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read staging secret %s/%s: %w", namespace, secret+StagingSuffix, err)
	case !isStagingSecret(staging, secret):
		return foreignError("secret", staging)
	}
	return nil
}

// foreignError names an object that Isthmus would have to change but does not manage.
func foreignError(kind string, o metav1.Object) error {
	return fmt.Errorf("%s %s/%s is left unchanged: %w: it has no label %s=%s", kind, o.GetNamespace(), o.GetName(), ErrForeign,
		policy.ManagedByLabel, policy.ManagedBy)
}

// isStagingSecret reports whether cert-manager wrote the Secret for our Certificate.
func isStagingSecret(staging *corev1.Secret, certificate string) bool {
	return policy.IsManaged(staging) && staging.Annotations[cmapi.CertificateNameKey] == certificate
}

// specDiffers reports whether a field that Isthmus sets has another value. Fields that
// others added do not count, except elements of lists: a list has one owner.
func specDiffers(desired, current *cmapi.Certificate) bool {
	return !equality.Semantic.DeepDerivative(desired.Spec, current.Spec) ||
		len(desired.Spec.URIs) != len(current.Spec.URIs) || len(desired.Spec.Usages) != len(current.Spec.Usages) ||
		(desired.Spec.Duration == nil) != (current.Spec.Duration == nil)
}

func (s *Source) certificates(namespace string) dynamic.ResourceInterface {
	return s.dynamic.Resource(cmapi.SchemeGroupVersion.WithResource("certificates")).Namespace(namespace)
}

// findCertificate returns the Certificate, nil when there is none.
func (s *Source) findCertificate(ctx context.Context, namespace, name string) (*cmapi.Certificate, error) {
	found, err := s.certificates(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case isUnknownKind(err):
		return nil, fmt.Errorf("%w (%w)", ErrNotInstalled, err)
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read certificate %s/%s: %w", namespace, name, err)
	}
	return parseCertificate(found)
}

func (s *Source) applyCertificate(ctx context.Context, c *cmapi.Certificate, force bool) (*cmapi.Certificate, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(c)
	if err != nil {
		return nil, err
	}
	delete(content, "status") // cert-manager owns it
	applied, err := s.certificates(c.Namespace).Apply(ctx, c.Name, &unstructured.Unstructured{Object: content},
		metav1.ApplyOptions{FieldManager: publish.FieldManager, Force: force})
	if err != nil {
		return nil, fmt.Errorf("apply certificate %s/%s: %w", c.Namespace, c.Name, err)
	}
	return parseCertificate(applied)
}

func (s *Source) deleteCertificate(ctx context.Context, c *cmapi.Certificate) error {
	err := s.certificates(c.Namespace).Delete(ctx, c.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &c.UID, ResourceVersion: &c.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete certificate %s/%s: %w", c.Namespace, c.Name, err)
	}
	return nil
}

// isUnknownKind distinguishes a kind that the API server does not serve, which it
// answers in plain text, from an object that does not exist.
func isUnknownKind(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

func parseCertificate(u *unstructured.Unstructured) (*cmapi.Certificate, error) {
	c := &cmapi.Certificate{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, c); err != nil {
		return nil, fmt.Errorf("certificate %s/%s: %w", u.GetNamespace(), u.GetName(), err)
	}
	return c, nil
}
