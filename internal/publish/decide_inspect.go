package publish

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// State says what a Secret holds, and whether Isthmus may write it.
type State string

// The states.
const (
	// Absent: there is no Secret.
	Absent State = "absent"
	// Good: Isthmus may write the Secret, and it holds a valid bundle of the right
	// identity.
	Good State = "good"
	// Bad: Isthmus may write the Secret, and it holds no such bundle.
	Bad State = "bad"
	// Foreign: the Secret is neither managed by Isthmus nor adopted.
	Foreign State = "foreign"
	// OtherIdentity: Isthmus may write the Secret, but it holds a valid bundle of
	// another SPIFFE ID.
	OtherIdentity State = "other-identity"
	// Immutable: Isthmus may write the Secret, but it is immutable.
	Immutable State = "immutable"
)

// Observation is a Secret as it was read, checked against its target. Inspect returns
// it.
type Observation struct {
	// State sums up what the other fields say.
	State State
	// Bundle is the Secret's bundle, with the roots of the mesh: nil unless State
	// is Good, or Immutable and the Secret holds a valid bundle.
	Bundle *certs.Bundle
	// Former is the Secret's bundle when it is of the same service account in another
	// trust domain, as after a migration of the mesh: nil unless State is Bad.
	Former *certs.Bundle
	// Err says why State is Bad. For Foreign, OtherIdentity and Immutable it also
	// says what to do. Nil otherwise.
	Err error
	// RenewAfter is when the bundle is due to be replaced: at a third of its life,
	// counted from its publication. LatestRenewal is two thirds of its whole life:
	// the renewal has failed by then. Both are zero without Bundle.
	RenewAfter, LatestRenewal time.Time
	// RootsDiffer says that there is Bundle or Former, but ca.crt or root-cert.pem lacks a
	// root of the mesh or holds one that is not a root of the mesh.
	RootsDiffer bool
	// LacksRoot says that there is Bundle or Former, but a root of the mesh is missing from
	// ca.crt or root-cert.pem.
	LacksRoot bool
	// LabelsDiffer says that State is Good, but label or annotations do not
	// describe what the Secret holds.
	LabelsDiffer bool
	// Source is the Secret's source annotation. Empty when there is none.
	Source string
	// PublishedAt is when the Secret was last written, and Nudged when it was last
	// nudged. Zero when an annotation is missing.
	PublishedAt, Nudged time.Time

	target Target
	secret *corev1.Secret // nil when there is none
	// ownRoots are the mesh's roots that are valid now, and extraRoots the roots in the
	// Secret that are not among them. heldRoots are the own roots that the Secret holds.
	ownRoots, extraRoots, heldRoots []*x509.Certificate
	// rootsDamaged says that ca.crt and root-cert.pem do not hold the same roots, as
	// Isthmus writes them.
	rootsDamaged bool
	// removedRoots are the extra roots that a publisher knows to be gone, and foundRoots
	// those that go with a renewal. See rootMemory.
	removedRoots, foundRoots []*x509.Certificate
	// future is the Secret's bundle when it is not valid yet by our clock.
	future *certs.Bundle
	// conflictUntil is when the bundle of another identity is no longer useful.
	// Zero unless State is OtherIdentity.
	conflictUntil time.Time
}

// ResourceVersion is that of the Secret. It is empty when there is none.
func (o Observation) ResourceVersion() string {
	if o.secret == nil {
		return ""
	}
	return o.secret.ResourceVersion
}

// NeedsCertificate reports whether a new certificate is needed: the Secret is absent,
// bad or due.
func (o Observation) NeedsCertificate(now time.Time) bool {
	switch o.State {
	case Absent, Bad:
		return true
	case Good:
		return !now.Before(o.RenewAfter)
	default:
		return false
	}
}

// Inspect checks a Secret, nil when there is none, against its target. It is pure.
// Only the mesh's roots count: the roots in the Secret itself prove nothing about its
// certificate.
func Inspect(secret *corev1.Secret, target Target, now time.Time) Observation {
	o := Observation{State: Absent, target: target, secret: secret}
	if secret == nil {
		return o
	}
	o.Source = secret.Annotations[policy.SourceKey]
	o.PublishedAt, o.Nudged = PublishedAt(secret), timeIn(secret, policy.NudgeKey)
	if !mayWrite(secret) {
		o.State, o.Err = Foreign, foreignError(secret)
		return o
	}
	bundle, err := bundleIn(secret, target.ID, target.Roots, now)
	switch {
	case err == nil:
		o.State, o.Bundle = Good, bundle
		o.RenewAfter, o.LatestRenewal = renewAfter(secret, bundle), thirdsOfLife(bundle, 2)
		o.compareRoots(bundle)
		o.LabelsDiffer = labelsDiffer(secret, target, bundle, now)
	case certs.ReasonOf(err) == certs.NotYetValid:
		o.State, o.Err = Bad, err
		o.future = futureBundle(secret, target)
	default:
		o.State, o.Err = Bad, err
		o.detectOtherIdentity(now)
	}
	if secret.Immutable != nil && *secret.Immutable {
		o.State = Immutable
		o.Err = fmt.Errorf("secret %s is immutable, so its certificate cannot be renewed: delete it, and Isthmus creates it again", target)
	}
	return o
}

// mayWrite reports whether the Secret is managed by Isthmus or was adopted: given to
// Isthmus by its owner.
func mayWrite(secret *corev1.Secret) bool {
	return policy.IsManaged(secret) || secret.Annotations[policy.AdoptKey] == "true"
}

func foreignError(secret *corev1.Secret) error {
	label := fmt.Sprintf("it has no label %s", policy.ManagedByLabel)
	if manager := secret.Labels[policy.ManagedByLabel]; manager != "" {
		label = fmt.Sprintf("%s is %q", policy.ManagedByLabel, manager)
	}
	return fmt.Errorf(`secret %s/%s (type %s) is not managed by Isthmus: %s; annotate it %s: "true" to give it to Isthmus, or choose another Secret name with %s`,
		secret.Namespace, secret.Name, secret.Type, label, policy.AdoptKey, policy.SecretNameKey)
}

// bundleIn validates the Secret's key and chain.
func bundleIn(secret *corev1.Secret, id spiffeid.ID, roots []*x509.Certificate, now time.Time) (*certs.Bundle, error) {
	return certs.New(certs.Material{
		Key: secret.Data[corev1.TLSPrivateKeyKey], Chain: secret.Data[corev1.TLSCertKey],
	}, certs.Want{ID: id, Roots: roots, Now: now})
}

// futureBundle returns the bundle of a Secret whose certificate becomes valid in the
// future; nil when it never becomes valid. A certificate that is not valid yet means
// that some clock is wrong, perhaps ours.
func futureBundle(secret *corev1.Secret, target Target) *certs.Bundle {
	chain, err := certs.ParseCertificates(secret.Data[corev1.TLSCertKey])
	if err != nil {
		return nil
	}
	bundle, err := bundleIn(secret, target.ID, target.Roots, chain[0].NotBefore)
	if err != nil {
		return nil
	}
	return bundle
}

// detectOtherIdentity sets OtherIdentity when a Bad Secret holds a bundle that is
// valid for the identity in it. The same service account in another trust domain is
// the same owner, as after a migration of the mesh: that Secret stays Bad, with
// Former.
func (o *Observation) detectOtherIdentity(now time.Time) {
	if certs.ReasonOf(o.Err) != certs.WrongIdentity {
		return
	}
	chain, err := certs.ParseCertificates(o.secret.Data[corev1.TLSCertKey])
	if err != nil || len(chain[0].URIs) != 1 {
		return
	}
	id, err := spiffeid.FromURI(chain[0].URIs[0])
	if err != nil {
		return
	}
	bundle, err := bundleIn(o.secret, id, o.target.Roots, now)
	if err != nil {
		return
	}
	if id.Path() == o.target.ID.Path() {
		o.Former = bundle
		o.compareRoots(bundle)
		return
	}
	o.State, o.conflictUntil = OtherIdentity, bundle.UsefulUntil()
	o.Err = fmt.Errorf("secret %s holds a certificate of %s that is valid until %s, but this edge needs one of %s: two edges with two service accounts need two Secrets; choose another name with %s",
		o.target, id, formatTime(bundle.NotAfter()), o.target.ID, policy.SecretNameKey)
}

// compareRoots compares ca.crt and root-cert.pem with the mesh's roots, which the bundle
// in the Secret has.
func (o *Observation) compareRoots(b *certs.Bundle) {
	own, err := certs.ParseCertificates(b.Roots()) // the mesh's roots that are valid now
	if err != nil {
		return // impossible: a bundle has a root
	}
	o.ownRoots, o.heldRoots = own, slices.Clone(own)
	for i, key := range rootKeys() {
		o.rootsDamaged = o.rootsDamaged || i > 0 && !bytes.Equal(o.secret.Data[key], o.secret.Data[rootKeys()[0]])
		got, err := certs.ParseCertificates(o.secret.Data[key])
		if err != nil {
			got, o.rootsDamaged = nil, true
		}
		o.heldRoots = slices.DeleteFunc(o.heldRoots, func(c *x509.Certificate) bool { return !contains(got, c) })
		for _, c := range got {
			if !contains(own, c) && !contains(o.extraRoots, c) {
				o.extraRoots = append(o.extraRoots, c)
			}
		}
	}
	o.LacksRoot = len(o.heldRoots) < len(own)
	o.RootsDiffer = o.LacksRoot || len(o.extraRoots) > 0
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(list, c.Equal)
}

// labelsDiffer reports whether the label or the annotations, which are readable
// without access to keys, do not match the bundle. renewAfter reads the renewal
// point and tolerates any value.
func labelsDiffer(secret *corev1.Secret, target Target, bundle *certs.Bundle, now time.Time) bool {
	if !policy.IsManaged(secret) {
		return true
	}
	for key, want := range target.Labels {
		if secret.Labels[key] != want {
			return true
		}
	}
	for key, want := range certificateAnnotations(target.ID, bundle) {
		if got := secret.Annotations[key]; got != want && (key != policy.NotAfterKey || got != notAfterOfOwnRoots(secret, target, now)) {
			return true
		}
	}
	return false
}

// notAfterOfOwnRoots returns the end of the Secret's certificate as the roots in the
// Secret give it. The end depends on the roots: writers that know different roots
// would correct each other's annotation in turns. The publishing writer knew the
// roots in the Secret. Empty if they do not verify the certificate.
func notAfterOfOwnRoots(secret *corev1.Secret, target Target, now time.Time) string {
	roots, err := certs.ParseCertificates(secret.Data[corev1.ServiceAccountRootCAKey])
	if err != nil {
		return ""
	}
	bundle, err := bundleIn(secret, target.ID, roots, now)
	if err != nil {
		return ""
	}
	return formatTime(bundle.NotAfter())
}

// errNoRoots: a Secret cannot be checked without the mesh's roots.
var errNoRoots = errors.New("no root certificate of the mesh is known")
