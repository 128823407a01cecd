// Package certs turns the keys and certificates that sources deliver into
// bundles that may be published: complete, matching, trusted and of the right
// identity. It does not publish and knows no Kubernetes client.
package certs

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Bundle is a private key, its certificate chain and the roots of the mesh, all
// checked against each other. New is the only way to one, so that whoever holds
// a Bundle may publish it. It is immutable.
type Bundle struct {
	id spiffeid.ID
	// key returns the one that it closes over, where reflection, and so fmt with
	// any verb, does not get at it.
	key   func() []byte
	chain []*x509.Certificate
	roots []*x509.Certificate
}

// Want is what material has to be for a Bundle.
type Want struct {
	// ID is the one identity that the leaf has to carry.
	ID spiffeid.ID
	// Roots are the mesh's trust anchors (ConfigMap istio-ca-root-cert).
	Roots []*x509.Certificate
	// Now is the time to judge validity by.
	Now time.Time
}

// Floor returns how much of a lifetime has to be left for a certificate to be
// worth publishing: a tenth, and at most a minute.
func Floor(lifetime time.Duration) time.Duration {
	return min(lifetime/10, time.Minute)
}

// New checks material and makes a Bundle of it. It is strict, because an edge
// takes whatever is in its Secret, and a front door with a torn or foreign pair
// is an outage:
//
//   - the PEM parses, with one key and at least one certificate;
//   - key and leaf match;
//   - the leaf carries exactly one URI, the SPIFFE ID that is wanted, is for
//     clients and servers, and is no CA;
//   - it is valid now, with Floor of its life left, counted from its issue;
//   - the chain leads to a root of the mesh or of the material itself, for
//     clients and for servers.
//
// Every error is a *Rejection.
func New(m Material, want Want) (*Bundle, error) {
	chain, err := ParseCertificates(m.Chain)
	if err != nil {
		return nil, reject(Malformed, "certificate chain: %v", err)
	}
	var own []*x509.Certificate
	if len(m.Roots) > 0 {
		if own, err = ParseCertificates(m.Roots); err != nil {
			return nil, reject(Malformed, "root certificates: %v", err)
		}
	}
	chain = withoutRoot(chain)
	leaf := chain[0]
	key, err := matches(leaf, m.Key)
	if err != nil {
		return nil, err
	}
	roots := anchors(union(want.Roots, own), want.Now)
	for _, err := range []error{
		identifies(leaf, want.ID),
		isForBothSides(leaf),
		isValid(leaf, want.Now),
		verify(chain, roots, want.Now),
	} {
		if err != nil {
			return nil, err
		}
	}
	return &Bundle{id: want.ID, key: func() []byte { return key }, chain: chain, roots: roots}, nil
}

// ID is the SPIFFE ID.
func (b *Bundle) ID() spiffeid.ID { return b.id }

// Serial is the leaf's serial number, as Serial writes it.
func (b *Bundle) Serial() string { return Serial(b.chain[0]) }

// NotBefore is where the leaf's validity begins. Istio's CA sets it two minutes
// before the issuance (ClockSkewGracePeriod in security/pkg/pki/util), so it
// says nothing about the certificate's age.
func (b *Bundle) NotBefore() time.Time { return b.chain[0].NotBefore }

// Issued is the latest time of issue that the dates suggest: Istio's CA may have
// dated the certificate back. A life counts from there.
func (b *Bundle) Issued() time.Time { return issued(b.chain[0]) }

// UsefulUntil is when so little of the life is left that New would refuse it.
func (b *Bundle) UsefulUntil() time.Time { return usefulUntil(b.chain[0]) }

// NotAfter is where the leaf's validity ends.
func (b *Bundle) NotAfter() time.Time { return b.chain[0].NotAfter }

// RootNotAfter is where the validity of the first root to expire ends.
func (b *Bundle) RootNotAfter() time.Time {
	first := b.roots[0].NotAfter
	for _, r := range b.roots[1:] {
		if r.NotAfter.Before(first) {
			first = r.NotAfter
		}
	}
	return first
}

// Key is the private key, one PEM block in PKCS#8.
func (b *Bundle) Key() []byte { return bytes.Clone(b.key()) }

// Chain is the leaf and the intermediates above it, as PEM.
func (b *Bundle) Chain() []byte { return EncodeCertificates(b.chain) }

// Roots are the trust anchors of mesh and material, each once, in a stable
// order, as PEM. Those that can verify nothing now are left out: what is not
// valid yet or no more, and what is no CA's.
func (b *Bundle) Roots() []byte { return EncodeCertificates(b.roots) }

// Equal says whether o would be published as the same bytes.
func (b *Bundle) Equal(o *Bundle) bool {
	same := func(a, b *x509.Certificate) bool { return a.Equal(b) }
	return o != nil && b.id == o.id && bytes.Equal(b.key(), o.key()) &&
		slices.EqualFunc(b.chain, o.chain, same) && slices.EqualFunc(b.roots, o.roots, same)
}

// String prints no key.
func (b Bundle) String() string {
	if len(b.chain) == 0 {
		return "no bundle"
	}
	return fmt.Sprintf("%s, serial %s, until %s", b.id, Serial(b.chain[0]), b.chain[0].NotAfter.UTC().Format(time.RFC3339))
}

// Format prints no key, whatever the verb.
func (b Bundle) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.String()) }

// MarshalText prints no key as JSON or YAML.
func (b Bundle) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// MarshalLog prints no key.
func (b Bundle) MarshalLog() any { return b.String() }

// Serial writes a certificate's serial number in hexadecimal, as openssl does.
func Serial(c *x509.Certificate) string { return fmt.Sprintf("%X", c.SerialNumber) }
