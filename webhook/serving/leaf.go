package serving

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/cert-manager/cert-manager/pkg/util/pki"
)

// leafBackdate is how long before its signing a leaf becomes valid, for the API
// server's clock may be behind.
const leafBackdate = 10 * time.Minute

// leaf is a serving certificate with its key and the authority that signed it.
type leaf struct {
	tls.Certificate
	issuer *pair
}

// Format keeps every verb from printing the key.
func (l *leaf) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "leaf of %s", l.issuedBy()) }

// MarshalLog keeps structured loggers from walking into the key.
func (l *leaf) MarshalLog() any { return fmt.Sprint(l) }

// renewAt is when two thirds of the leaf's lifetime are over.
func (l *leaf) renewAt() time.Time { return twoThirds(l.Leaf) }

// issuedBy is the authority that signed the leaf; nil for no leaf.
func (l *leaf) issuedBy() *pair {
	if l == nil {
		return nil
	}
	return l.issuer
}

// twoThirds is the time when two thirds of a certificate's lifetime are over, which
// is when cert-manager renews certificates too.
func twoThirds(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
}

// signLeaf makes a key and signs a serving certificate for it. The leaf never
// outlives its authority.
func (p *pair) signLeaf(o Options, now time.Time) (*leaf, error) {
	left := min(o.LeafTTL, p.root.NotAfter.Sub(now))
	if left <= 0 {
		return nil, fmt.Errorf("the CA %s expired at %s", p, p.root.NotAfter.Format(time.RFC3339))
	}
	key, err := pki.GenerateECPrivateKey(pki.ECCurve384)
	if err != nil {
		return nil, fmt.Errorf("generate the key of the serving certificate: %w", err)
	}
	template := &x509.Certificate{
		DNSNames: o.DNSNames, IPAddresses: o.IPAddresses,
		// The renewal time is counted from NotBefore: backdating by more than a part
		// of the time that is left would move it into the past.
		NotBefore: now.Add(-min(leafBackdate, left/4)), NotAfter: now.Add(left),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	_, certificate, err := pki.SignCertificate(template, p.root, key.Public(), p.key)
	if err != nil {
		return nil, fmt.Errorf("sign a serving certificate with the CA %s: %w", p, err)
	}
	return &leaf{
		Certificate: tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key, Leaf: certificate},
		issuer:      p,
	}, nil
}
