package serving

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/cert-manager/cert-manager/pkg/util/pki"
	corev1 "k8s.io/api/core/v1"
)

// Keys of the Secret, besides tls.crt and tls.key, which hold the authority that signs.
const (
	// NextCertKey holds the certificate of the authority that signs next.
	NextCertKey = "next.crt"
	// NextPrivateKeyKey holds its key.
	NextPrivateKeyKey = "next.key"
	// BundleKey holds every root that a leaf in use may be verified by.
	BundleKey = "ca.crt"
)

// Annotations of the Secret.
const (
	// PhaseAnnotation holds the phase of a rotation: stable, announcing, announced or promoted.
	PhaseAnnotation = "isthmus.dev/ca-phase"
	// PhaseSinceAnnotation holds the time when the phase began, as RFC 3339 with nanoseconds.
	PhaseSinceAnnotation = "isthmus.dev/ca-phase-since"
)

// phase is a phase of a rotation; see the package's documentation.
type phase string

const (
	stable     phase = "stable"
	announcing phase = "announcing"
	announced  phase = "announced"
	promoted   phase = "promoted"
)

// rotationState is the content of the Secret.
type rotationState struct {
	signing *authority
	next    *authority
	bundle  roots
	phase   phase
	since   time.Time
}

// parsedSecret is the usable content of the Secret, and what is wrong with the rest.
type parsedSecret struct {
	rotationState
	// problems says what is missing or damaged; empty when nothing is.
	problems []string
	// rootsWithoutKey are CA certificates whose key is missing or damaged. Leaves that
	// they signed may be in use.
	rootsWithoutKey roots
	// isEmpty is true for the Secret that the chart creates.
	isEmpty bool
}

// parseSecret parses the Secret. It reuses the authorities of last instead of parsing
// them again.
func parseSecret(secret *corev1.Secret, now time.Time, last rotationState) parsedSecret {
	s := parsedSecret{isEmpty: len(secret.Data) == 0}
	s.signing = s.parseAuthority(secret, corev1.TLSCertKey, corev1.TLSPrivateKeyKey, now, last)
	s.next = s.parseAuthority(secret, NextCertKey, NextPrivateKeyKey, now, last)
	if s.signing == nil && s.next == nil && len(s.problems) == 0 {
		s.problems = append(s.problems, "it holds no certificate authority")
	}

	bundle, canonical := parseRoots(secret.Data[BundleKey])
	s.bundle = bundle
	if !canonical && len(secret.Data[BundleKey]) > 0 {
		s.problems = append(s.problems, BundleKey+" is not a clean list of PEM certificates")
	}
	for _, a := range []*authority{s.signing, s.next} {
		if a != nil && !bundle.contains(a.root) {
			s.problems = append(s.problems, fmt.Sprintf("%s lacks the CA %s", BundleKey, a))
		}
	}

	s.phase = phase(secret.Annotations[PhaseAnnotation])
	if since, err := time.Parse(time.RFC3339Nano, secret.Annotations[PhaseSinceAnnotation]); err == nil {
		s.since = since
	}
	return s
}

func (s *parsedSecret) parseAuthority(secret *corev1.Secret, certKey, privateKeyKey string, now time.Time, last rotationState) *authority {
	certPEM, keyPEM := secret.Data[certKey], secret.Data[privateKeyKey]
	if len(certPEM)+len(keyPEM) == 0 {
		return nil
	}
	for _, a := range []*authority{last.signing, last.next} {
		if a != nil && bytes.Equal(a.certPEM, certPEM) && bytes.Equal(a.keyPEM, keyPEM) && !now.After(a.root.NotAfter) {
			return a
		}
	}
	a, err := parseAuthority(certPEM, keyPEM, now)
	if err == nil {
		return a
	}
	s.problems = append(s.problems, fmt.Sprintf("%s and %s: %v", certKey, privateKeyKey, err))
	if certificate, err := pki.DecodeX509CertificateBytes(certPEM); err == nil {
		s.rootsWithoutKey = s.rootsWithoutKey.union(certificate)
	}
	return nil
}

// writeTo puts the state into the Secret and leaves everything else in it alone.
func (s rotationState) writeTo(secret *corev1.Secret) {
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	write := func(certKey, privateKeyKey string, a *authority) {
		if a == nil {
			delete(secret.Data, certKey)
			delete(secret.Data, privateKeyKey)
			return
		}
		secret.Data[certKey], secret.Data[privateKeyKey] = a.certPEM, a.keyPEM
	}
	write(corev1.TLSCertKey, corev1.TLSPrivateKeyKey, s.signing)
	write(NextCertKey, NextPrivateKeyKey, s.next)
	secret.Data[BundleKey] = s.bundle.encode()
	secret.Annotations[PhaseAnnotation] = string(s.phase)
	secret.Annotations[PhaseSinceAnnotation] = s.since.UTC().Format(time.RFC3339Nano)
}

// retiring are the roots of the bundle whose authority no longer signs.
func (s rotationState) retiring() roots {
	var present []*x509.Certificate
	for _, a := range []*authority{s.signing, s.next} {
		if a != nil {
			present = append(present, a.root)
		}
	}
	return s.bundle.difference(present...)
}

// impliedPhase is the phase that the certificates imply. They cannot tell announcing
// from announced; there the recorded phase decides.
func (s rotationState) impliedPhase() phase {
	switch {
	case s.next != nil && s.phase == announced:
		return announced
	case s.next != nil:
		return announcing
	case len(s.retiring()) > 0:
		return promoted
	default:
		return stable
	}
}
