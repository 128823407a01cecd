package serving

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/cert-manager/cert-manager/pkg/util/pki"
)

// leafBackdate is how long before its signing a leaf becomes valid, because the API
// server's clock may be behind.
const leafBackdate = 10 * time.Minute

// leaf is a serving certificate with its key and the authority that signed it. It
// prints itself without the key.
type leaf struct {
	tls.Certificate
	issuer *authority
}

// Format keeps every verb from printing the key.
func (l *leaf) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "leaf of %s", l.issuedBy()) }

// MarshalLog keeps structured loggers from printing the key.
func (l *leaf) MarshalLog() any { return fmt.Sprint(l) }

// issuedBy is the authority that signed the leaf; nil for no leaf.
func (l *leaf) issuedBy() *authority {
	if l == nil {
		return nil
	}
	return l.issuer
}

// renewAt is when the leaf is renewed.
func (l *leaf) renewAt() time.Time { return renewalTime(l.Leaf) }

// renewalTime is when two thirds of a certificate's lifetime are over. cert-manager
// renews at the same point.
func renewalTime(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
}

// signLeaf generates a key and signs a serving certificate for it, which ends no
// later than its authority.
func (a *authority) signLeaf(o Options, now time.Time) (*leaf, error) {
	lifetime := min(o.LeafTTL, a.root.NotAfter.Sub(now))
	if lifetime <= 0 {
		return nil, fmt.Errorf("the CA %s expired at %s", a, a.root.NotAfter.Format(time.RFC3339))
	}
	key, err := pki.GenerateECPrivateKey(pki.ECCurve256)
	if err != nil {
		return nil, fmt.Errorf("generate the key of the serving certificate: %w", err)
	}
	template := &x509.Certificate{
		DNSNames: o.DNSNames, IPAddresses: o.IPAddresses,
		// The renewal time counts from NotBefore. A larger part of a short lifetime
		// would put it into the past.
		NotBefore: now.Add(-min(leafBackdate, lifetime/4)), NotAfter: now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	_, certificate, err := pki.SignCertificate(template, a.root, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("sign a serving certificate with the CA %s: %w", a, err)
	}
	return &leaf{
		Certificate: tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key, Leaf: certificate},
		issuer:      a,
	}, nil
}
