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

// renewBeforePercentage makes cert-manager renew when two thirds of a lifetime
// are left, whatever lifetime the issuer grants. (Its controllers take the
// percentage for what is left: desiredRenewalTime in pkg/util/pki of v1.21.)
// cert-manager before 1.16 has no such field and refuses the Certificate.
const renewBeforePercentage = 67

// Lifetime returns the lifetime that is asked of cert-manager for one that is
// wanted: cert-manager's webhook refuses less than an hour
// (MinimumCertificateDuration), so that is the least, with an error to show to
// whoever asked for less. The lifetime is good either way. Zero is left to
// cert-manager, for which it means 90 days.
func Lifetime(ttl time.Duration) (time.Duration, error) {
	if ttl == 0 || ttl >= cmapi.MinimumCertificateDuration {
		return ttl, nil
	}
	return cmapi.MinimumCertificateDuration,
		fmt.Errorf("cert-manager issues for an hour or more: a certificate lifetime of %s is asked for, and %s used", ttl, cmapi.MinimumCertificateDuration)
}

// desired is the Certificate that r asks for.
func (s *Source) desired(r certs.Request) *cmapi.Certificate {
	ours := map[string]string{policy.ManagedByLabel: policy.ManagedBy}
	c := &cmapi.Certificate{
		TypeMeta:   metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateKind},
		ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.Secret, Labels: ours},
		Spec: cmapi.CertificateSpec{
			SecretName:     r.Secret + StagingSuffix,
			SecretTemplate: &cmapi.CertificateSecretTemplate{Labels: ours},
			IssuerRef:      s.issuer,
			URIs:           []string{r.Want.ID.String()},
			// Key encipherment is for RSA keys only; a key on a curve signs.
			Usages:                []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageClientAuth, cmapi.UsageServerAuth},
			PrivateKey:            &cmapi.CertificatePrivateKey{RotationPolicy: cmapi.RotationPolicyAlways, Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 256},
			RenewBeforePercentage: ptr.To[int32](renewBeforePercentage),
			RevisionHistoryLimit:  ptr.To[int32](1),
		},
	}
	if ttl, _ := Lifetime(r.TTL); ttl != 0 {
		c.Spec.Duration = &metav1.Duration{Duration: ttl}
	}
	return c
}

// keep makes the Certificate what r asks for and returns it as it stands.
func (s *Source) keep(ctx context.Context, r certs.Request) (*cmapi.Certificate, error) {
	standing, err := s.find(ctx, r.Namespace, r.Secret)
	if err != nil {
		return nil, err
	}
	want := s.desired(r)
	switch {
	case standing == nil:
		// cert-manager takes over whatever Secret has the name.
		if err := s.isFree(ctx, r.Namespace, r.Secret); err != nil {
			return nil, err
		}
		return s.apply(ctx, want, false)
	case !policy.IsManaged(standing):
		return nil, foreign("certificate", standing, policy.ManagedByLabel+"="+policy.ManagedBy)
	case differs(want, standing):
		want.ResourceVersion = standing.ResourceVersion
		return s.apply(ctx, want, true)
	}
	return standing, nil
}

// isFree says whether cert-manager may write the staging Secret.
func (s *Source) isFree(ctx context.Context, namespace, secret string) error {
	staging, err := s.secrets.Get(ctx, namespace, secret+StagingSuffix)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read staging secret %s/%s: %w", namespace, secret+StagingSuffix, err)
	case !isStaging(staging, secret):
		return foreign("secret", staging, policy.ManagedByLabel+"="+policy.ManagedBy)
	}
	return nil
}

// foreign says what stands in the way and which mark it lacks.
func foreign(kind string, o metav1.Object, lacks string) error {
	return fmt.Errorf("%s %s/%s is left as it is: %w, for it has no label %s", kind, o.GetNamespace(), o.GetName(), ErrForeign, lacks)
}

// isStaging reports whether cert-manager wrote the Secret for our Certificate.
func isStaging(staging *corev1.Secret, certificate string) bool {
	return policy.IsManaged(staging) && staging.Annotations[cmapi.CertificateNameKey] == certificate
}

// differs reports whether something that we want is not so. What others added
// is theirs, but for the lists, which have one owner.
func differs(want, standing *cmapi.Certificate) bool {
	return !equality.Semantic.DeepDerivative(want.Spec, standing.Spec) ||
		len(want.Spec.URIs) != len(standing.Spec.URIs) || len(want.Spec.Usages) != len(standing.Spec.Usages) ||
		(want.Spec.Duration == nil) != (standing.Spec.Duration == nil)
}

func (s *Source) certificates(namespace string) dynamic.ResourceInterface {
	return s.dynamic.Resource(cmapi.SchemeGroupVersion.WithResource("certificates")).Namespace(namespace)
}

// find returns the Certificate, nil when there is none.
func (s *Source) find(ctx context.Context, namespace, name string) (*cmapi.Certificate, error) {
	found, err := s.certificates(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case isUnknownKind(err):
		return nil, fmt.Errorf("%w (%w)", ErrNotInstalled, err)
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read certificate %s/%s: %w", namespace, name, err)
	}
	return parse(found)
}

func (s *Source) apply(ctx context.Context, c *cmapi.Certificate, force bool) (*cmapi.Certificate, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(c)
	if err != nil {
		return nil, err
	}
	delete(content, "status") // cert-manager's
	applied, err := s.certificates(c.Namespace).Apply(ctx, c.Name, &unstructured.Unstructured{Object: content},
		metav1.ApplyOptions{FieldManager: publish.Manager, Force: force})
	if err != nil {
		return nil, fmt.Errorf("apply certificate %s/%s: %w", c.Namespace, c.Name, err)
	}
	return parse(applied)
}

func (s *Source) delete(ctx context.Context, c *cmapi.Certificate) error {
	err := s.certificates(c.Namespace).Delete(ctx, c.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &c.UID, ResourceVersion: &c.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete certificate %s/%s: %w", c.Namespace, c.Name, err)
	}
	return nil
}

// isUnknownKind tells the answer to a path that the API server does not serve,
// plain text, from that to an object it does not have.
func isUnknownKind(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

func parse(u *unstructured.Unstructured) (*cmapi.Certificate, error) {
	c := &cmapi.Certificate{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, c); err != nil {
		return nil, fmt.Errorf("certificate %s/%s: %w", u.GetNamespace(), u.GetName(), err)
	}
	return c, nil
}
