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

// State says what stands in the place of a Secret.
type State string

// The states.
const (
	// Absent: there is no Secret.
	Absent State = "absent"
	// Good: ours (or adopted), with a bundle of the right identity.
	Good State = "good"
	// Bad: ours (or adopted), but what is in it is no such bundle.
	Bad State = "bad"
	// Foreign: someone else's, and not adopted.
	Foreign State = "foreign"
	// OtherIdentity: ours, with a valid bundle of another SPIFFE ID.
	OtherIdentity State = "other-identity"
	// Immutable: ours, but nobody can change it.
	Immutable State = "immutable"
)

// Standing is what stands in the place of a Secret, judged.
type Standing struct {
	State State
	// Bundle is what the Secret holds: nil unless State is Good, or Immutable
	// with a good bundle in it. Its roots are the mesh's.
	Bundle *certs.Bundle
	// Err says why State is Bad; why it is Foreign, OtherIdentity or Immutable,
	// and what to do about it. Nil otherwise.
	Err error
	// RenewAfter is when the bundle is due to be replaced: at a third of its
	// life, counted from its publication. Zero without Bundle.
	RenewAfter time.Time
	// RootsDiffer: the Secret is Good, but its ca.crt or root-cert.pem lacks a
	// root of the mesh, or holds one that is none.
	RootsDiffer bool
	// LabelsDiffer: the Secret is Good, but label or annotations do not say
	// what is in it.
	LabelsDiffer bool
	// Source is the annotation of the Secret, empty when there is none.
	Source string

	target Target
	secret *corev1.Secret
	// lacksRoot is RootsDiffer without the roots that are too many.
	lacksRoot bool
	// strangers are the roots in the Secret that are none of the mesh.
	strangers []*x509.Certificate
	// future is a bundle that is not valid yet, by our clock.
	future *certs.Bundle
	// until is when what stands in the way stops to: zero when never.
	until time.Time
}

// Needs reports whether a new certificate is wanted: there is none, it is bad,
// or it is due.
func (s Standing) Needs(now time.Time) bool {
	switch s.State {
	case Absent, Bad:
		return true
	case Good:
		return !now.Before(s.RenewAfter)
	default:
		return false
	}
}

// Inspect judges a Secret, nil when there is none, by the mesh's roots alone:
// the roots that lie beside a certificate prove nothing of it.
func Inspect(secret *corev1.Secret, target Target, now time.Time) Standing {
	s := Standing{State: Absent, target: target, secret: secret}
	if secret == nil {
		return s
	}
	s.Source = secret.Annotations[policy.SourceKey]
	if !mayWrite(secret) {
		s.State, s.Err = Foreign, foreign(secret)
		return s
	}
	bundle, err := held(secret, target.ID, target.Roots, now)
	switch {
	case err == nil:
		s.State, s.Bundle = Good, bundle
		s.RenewAfter = renewAfter(secret, bundle)
		s.inspectRoots()
		s.LabelsDiffer = labelsDiffer(secret, target, bundle)
	case certs.ReasonOf(err) == certs.NotYetValid:
		s.State, s.Err = Bad, err
		s.future = future(secret, target)
	default:
		s.State, s.Err = Bad, err
		s.inspectOther(now)
	}
	if secret.Immutable != nil && *secret.Immutable {
		s.State = Immutable
		s.Err = fmt.Errorf("secret %s is immutable, nobody can renew what is in it: delete it, and it is written anew", target)
	}
	return s
}

// mayWrite: Isthmus manages the Secret, or its owner has given it to Isthmus.
func mayWrite(secret *corev1.Secret) bool {
	return policy.IsManaged(secret) || secret.Annotations[policy.AdoptKey] == "true"
}

func foreign(secret *corev1.Secret) error {
	owner := "nobody says who manages it"
	if manager := secret.Labels[policy.ManagedByLabel]; manager != "" {
		owner = fmt.Sprintf("%s is %q", policy.ManagedByLabel, manager)
	}
	return fmt.Errorf(`secret %s/%s (type %s) is not ours: %s; annotate it %s: "true" to give it to Isthmus, or choose another name by %s`,
		secret.Namespace, secret.Name, secret.Type, owner, policy.AdoptKey, policy.SecretNameKey)
}

// held makes a bundle of what the Secret holds.
func held(secret *corev1.Secret, id spiffeid.ID, roots []*x509.Certificate, now time.Time) (*certs.Bundle, error) {
	return certs.New(certs.Material{
		Key: secret.Data[corev1.TLSPrivateKeyKey], Chain: secret.Data[corev1.TLSCertKey],
	}, certs.Want{ID: id, Roots: roots, Now: now})
}

// future returns the bundle that the Secret will hold when its validity begins.
// Where it would be good, a clock is wrong, and perhaps ours.
func future(secret *corev1.Secret, target Target) *certs.Bundle {
	chain, err := certs.ParseCertificates(secret.Data[corev1.TLSCertKey])
	if err != nil {
		return nil
	}
	bundle, err := held(secret, target.ID, target.Roots, chain[0].NotBefore)
	if err != nil {
		return nil
	}
	return bundle
}

// inspectOther finds out whether what is bad for us is good for someone else.
func (s *Standing) inspectOther(now time.Time) {
	if certs.ReasonOf(s.Err) != certs.WrongIdentity {
		return
	}
	chain, err := certs.ParseCertificates(s.secret.Data[corev1.TLSCertKey])
	if err != nil || len(chain[0].URIs) != 1 {
		return
	}
	id, err := spiffeid.FromURI(chain[0].URIs[0])
	if err != nil {
		return
	}
	other, err := held(s.secret, id, s.target.Roots, now)
	if err != nil {
		return
	}
	s.State, s.until = OtherIdentity, other.UsefulUntil()
	s.Err = fmt.Errorf("secret %s holds a certificate of %s that is valid until %s, and %s is wanted: two edges with two service accounts need two names, see %s",
		s.target, id, stamp(other.NotAfter()), s.target.ID, policy.SecretNameKey)
}

// inspectRoots compares what ca.crt and root-cert.pem hold with the mesh's
// roots. Good has to be established.
func (s *Standing) inspectRoots() {
	want, err := certs.ParseCertificates(s.Bundle.Roots()) // the mesh's that are valid now
	if err != nil {
		return // cannot be: a bundle has a root
	}
	for _, key := range rootKeys() {
		got, err := certs.ParseCertificates(s.secret.Data[key])
		if err != nil {
			s.lacksRoot = true
			continue
		}
		s.lacksRoot = s.lacksRoot || slices.ContainsFunc(want, func(c *x509.Certificate) bool { return !contains(got, c) })
		for _, c := range got {
			if !contains(want, c) && !contains(s.strangers, c) {
				s.strangers = append(s.strangers, c)
			}
		}
	}
	s.RootsDiffer = s.lacksRoot || len(s.strangers) > 0
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(list, c.Equal)
}

// labelsDiffer compares what can be read without the right to read keys with
// what is in the Secret. When to renew is judged by renewAfter.
func labelsDiffer(secret *corev1.Secret, target Target, bundle *certs.Bundle) bool {
	if !policy.IsManaged(secret) {
		return true
	}
	for key, want := range facts(target.ID, bundle) {
		if secret.Annotations[key] != want {
			return true
		}
	}
	return false
}

// renewAfter reads when the bundle in a Secret is due. Its publication is not in
// it, so that stands in an annotation. Anyone who may edit the Secret may write
// that, so it is believed only about this certificate, and only from the
// beginning of the validity to two thirds of the life. Where it is of no use it
// is a third of the life.
func renewAfter(secret *corev1.Secret, b *certs.Bundle) time.Time {
	at, err := time.Parse(time.RFC3339, secret.Annotations[policy.RenewAfterKey])
	latest := partOfLife(b, 2)
	switch {
	case err != nil, secret.Annotations[policy.SerialKey] != b.Serial(), at.Before(b.NotBefore()):
		return partOfLife(b, 1)
	case at.After(latest):
		return latest
	}
	return at
}

// partOfLife is so many thirds into the life.
func partOfLife(b *certs.Bundle, thirds time.Duration) time.Time {
	return b.Issued().Add(b.NotAfter().Sub(b.Issued()) * thirds / 3)
}

// errNoRoots: without the mesh's roots nothing can be judged.
var errNoRoots = errors.New("no root of the mesh is known")

// same reports whether two bundles are the same key and chain.
func same(a, b *certs.Bundle) bool {
	return bytes.Equal(a.Chain(), b.Chain()) && bytes.Equal(a.Key(), b.Key())
}
