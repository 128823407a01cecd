// Package certs validates the keys and certificates that sources deliver. The
// result is a Bundle that may be published: complete, matching, trusted and of the
// right identity. The package does not publish and uses no Kubernetes client.
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

// Bundle is a private key, its certificate chain and the roots of the mesh,
// checked against each other. Only New makes Bundles, so every Bundle may be
// published. It is immutable.
type Bundle struct {
	id spiffeid.ID
	// key returns the private key that the closure holds. Reflection cannot read
	// it there, and neither can fmt with any verb.
	key   func() []byte
	chain []*x509.Certificate
	roots []*x509.Certificate
	// path leads from the leaf to a root. Of several paths it is the one that stays
	// valid longest.
	path []*x509.Certificate
	// rootsPEM is roots as PEM, which is read at every check of a Secret.
	rootsPEM string
}

// Want is what material has to satisfy to become a Bundle.
type Want struct {
	// ID is the SPIFFE ID that the leaf has to carry, and no other.
	ID spiffeid.ID
	// Roots are the mesh's trust anchors (ConfigMap istio-ca-root-cert).
	Roots []*x509.Certificate
	// Now is the time at which the certificates have to be valid.
	Now time.Time
}

// MinRemainingLife returns how much of a lifetime has to remain for a certificate
// to be worth publishing: a tenth, and at most a minute.
func MinRemainingLife(lifetime time.Duration) time.Duration {
	return min(lifetime/10, time.Minute)
}

// New validates material and returns a Bundle. It is strict: an edge serves
// whatever its Secret holds, so a mismatched key or another edge's certificate is an
// outage.
// These conditions have to hold:
//
//   - the PEM parses, with one key and at least one certificate;
//   - key and leaf match;
//   - the leaf carries exactly one URI, the wanted SPIFFE ID, is for clients and
//     servers, and is not a CA;
//   - the chain leads to a root of the mesh or of the material itself, for
//     clients and for servers;
//   - leaf, intermediates and root are valid now, and MinRemainingLife of the life
//     that they leave, counted from the leaf's issue, is left.
//
// Every error is a *Rejection.
func New(m Material, want Want) (*Bundle, error) {
	chain, err := ParseCertificates(m.Chain)
	if err != nil {
		return nil, reject(Malformed, "certificate chain: %v", err)
	}
	var ownRoots []*x509.Certificate
	if len(m.Roots) > 0 {
		if ownRoots, err = parseOwnRoots(m.Roots); err != nil {
			return nil, reject(Malformed, "root certificates: %v", err)
		}
	}
	chain = withoutRoot(chain)
	leaf := chain[0]
	key, err := matchKey(leaf, m.Key)
	if err != nil {
		return nil, err
	}
	roots := validAnchors(MergeRoots(want.Roots, ownRoots), want.Now)
	for _, err := range []error{
		checkIdentity(leaf, want.ID),
		checkUsage(leaf),
		checkValidity(chain[:1], want.Now),
	} {
		if err != nil {
			return nil, err
		}
	}
	path, err := verifyChain(chain, roots, want.Now)
	if err != nil {
		return nil, err
	}
	if err := checkValidity(path, want.Now); err != nil {
		return nil, err
	}
	return &Bundle{id: want.ID, key: func() []byte { return key }, chain: chain, roots: roots, path: path, rootsPEM: string(EncodeCertificates(roots))}, nil
}

// parseOwnRoots parses the roots of the material. It leaves out those that cannot be
// read, unless none can. A truncated file is an error: its writer is not done.
func parseOwnRoots(data []byte) ([]*x509.Certificate, error) {
	if _, err := decodeBlocks(data); err != nil {
		return nil, err
	}
	roots, err := ParseRoots(data)
	if len(roots) == 0 {
		return nil, err
	}
	return roots, nil
}

// ID is the SPIFFE ID of the leaf.
func (b *Bundle) ID() spiffeid.ID { return b.id }

// Serial is the leaf's serial number, as Serial writes it.
func (b *Bundle) Serial() string { return Serial(b.chain[0]) }

// NotBefore is the beginning of the leaf's validity. Istio's CA sets it two minutes
// before the issuance (ClockSkewGracePeriod in security/pkg/pki/util), so it is not
// the time of issue.
func (b *Bundle) NotBefore() time.Time { return b.chain[0].NotBefore }

// Issued is the latest time of issue that the validity allows, because Istio's CA
// may have backdated the certificate. The life of a certificate counts from there.
func (b *Bundle) Issued() time.Time { return issued(b.chain[0]) }

// UsefulUntil is when less than MinRemainingLife is left, so that New would reject
// the certificate.
func (b *Bundle) UsefulUntil() time.Time { return usefulUntil(b.path) }

// NotAfter is the end of the bundle's validity: the first end among leaf,
// intermediates and root. A leaf often outlives an intermediate that is about to be
// replaced.
func (b *Bundle) NotAfter() time.Time { return firstToExpire(b.path).NotAfter }

// Limit names the intermediate or root that expires before the leaf, and when. It is
// empty if the leaf expires first.
func (b *Bundle) Limit() string {
	c := firstToExpire(b.path)
	if c == b.path[0] {
		return ""
	}
	return fmt.Sprintf("%s, valid until %s", describe(b.path, c), c.NotAfter.UTC().Format(time.RFC3339))
}

// RootNotAfter is when the first of the roots expires.
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

// Roots are the trust anchors of mesh and material, each once, in a stable order,
// as PEM. Certificates that cannot verify anything now are left out: those that are
// not valid yet, expired, or not a CA's.
func (b *Bundle) Roots() []byte { return []byte(b.rootsPEM) }

// Equal reports whether both bundles are published as the same bytes.
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
	limit := ""
	if c := firstToExpire(b.path); c != b.path[0] {
		limit = fmt.Sprintf(" (the end of %s)", describe(b.path, c))
	}
	return fmt.Sprintf("%s, serial %s, until %s%s", b.id, Serial(b.chain[0]), b.NotAfter().UTC().Format(time.RFC3339), limit)
}

// Format prints no key for any verb.
func (b Bundle) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.String()) }

// MarshalText prints no key as JSON or YAML.
func (b Bundle) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// MarshalLog prints no key.
func (b Bundle) MarshalLog() any { return b.String() }

// Serial writes a certificate's serial number in hexadecimal, as openssl does.
func Serial(c *x509.Certificate) string { return fmt.Sprintf("%X", c.SerialNumber) }
