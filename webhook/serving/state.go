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
	// NextCertKey holds the certificate of the authority that will sign next.
	NextCertKey = "next.crt"
	// NextPrivateKeyKey holds its key.
	NextPrivateKeyKey = "next.key"
	// BundleKey holds every root that a leaf in use may be verified by.
	BundleKey = "ca.crt"
)

// Annotations of the Secret.
const (
	// PhaseAnnotation says how far a rotation is: stable, announcing, announced or promoted.
	PhaseAnnotation = "isthmus.dev/ca-phase"
	// PhaseSinceAnnotation says since when, as RFC 3339 with nanoseconds.
	PhaseSinceAnnotation = "isthmus.dev/ca-phase-since"
)

type phase string

const (
	stable     phase = "stable"
	announcing phase = "announcing"
	announced  phase = "announced"
	promoted   phase = "promoted"
)

// state is what the Secret says.
type state struct {
	signing *pair
	next    *pair
	bundle  roots
	phase   phase
	since   time.Time
}

// reading is a state as it was found, with what was wrong about it.
type reading struct {
	state
	// damaged says what is missing or broken; empty for a whole state.
	damaged []string
	// stray are certificates whose keys are lost. Leaves of theirs may be in use.
	stray roots
	// empty tells a Secret fresh from the chart.
	empty bool
}

// readState reads the Secret; pairs of the last state are not parsed again.
func readState(secret *corev1.Secret, now time.Time, last state) reading {
	r := reading{empty: len(secret.Data) == 0}
	r.signing = r.readPair(secret, corev1.TLSCertKey, corev1.TLSPrivateKeyKey, now, last)
	r.next = r.readPair(secret, NextCertKey, NextPrivateKeyKey, now, last)
	if r.signing == nil && r.next == nil && len(r.damaged) == 0 {
		r.damaged = append(r.damaged, "there is no certificate authority in it")
	}

	bundle, whole := readRoots(secret.Data[BundleKey])
	r.bundle = bundle
	if !whole && len(secret.Data[BundleKey]) > 0 {
		r.damaged = append(r.damaged, BundleKey+" is no clean list of certificates")
	}
	for _, p := range []*pair{r.signing, r.next} {
		if p != nil && !bundle.has(p.root) {
			r.damaged = append(r.damaged, fmt.Sprintf("%s lacks the CA %s", BundleKey, p))
		}
	}

	r.phase = phase(secret.Annotations[PhaseAnnotation])
	if since, err := time.Parse(time.RFC3339Nano, secret.Annotations[PhaseSinceAnnotation]); err == nil {
		r.since = since
	}
	return r
}

func (r *reading) readPair(secret *corev1.Secret, certKey, keyKey string, now time.Time, last state) *pair {
	certPEM, keyPEM := secret.Data[certKey], secret.Data[keyKey]
	if len(certPEM)+len(keyPEM) == 0 {
		return nil
	}
	for _, p := range []*pair{last.signing, last.next} {
		if p != nil && bytes.Equal(p.certPEM, certPEM) && bytes.Equal(p.keyPEM, keyPEM) && !now.After(p.root.NotAfter) {
			return p
		}
	}
	p, err := readPair(certPEM, keyPEM, now)
	if err == nil {
		return p
	}
	r.damaged = append(r.damaged, fmt.Sprintf("%s and %s: %v", certKey, keyKey, err))
	if certificate, err := pki.DecodeX509CertificateBytes(certPEM); err == nil {
		r.stray = r.stray.with(certificate)
	}
	return nil
}

// write puts the state into the Secret and leaves everything else in it alone.
func (s state) write(secret *corev1.Secret) {
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	put := func(certKey, keyKey string, p *pair) {
		if p == nil {
			delete(secret.Data, certKey)
			delete(secret.Data, keyKey)
			return
		}
		secret.Data[certKey], secret.Data[keyKey] = p.certPEM, p.keyPEM
	}
	put(corev1.TLSCertKey, corev1.TLSPrivateKeyKey, s.signing)
	put(NextCertKey, NextPrivateKeyKey, s.next)
	secret.Data[BundleKey] = s.bundle.pem()
	secret.Annotations[PhaseAnnotation] = string(s.phase)
	secret.Annotations[PhaseSinceAnnotation] = s.since.UTC().Format(time.RFC3339Nano)
}

// retiring are the roots that nobody signs with any more.
func (s state) retiring() roots {
	var held []*x509.Certificate
	for _, p := range []*pair{s.signing, s.next} {
		if p != nil {
			held = append(held, p.root)
		}
	}
	return s.bundle.without(held...)
}
