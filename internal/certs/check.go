package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// matches returns the key as one PEM block when it belongs to the leaf: in
// PKCS#8, whatever it came in, so that who reads the Secret sees one encoding
// from every source. Istio's agent writes PKCS#1 and SEC 1, which some readers
// of TLS Secrets do not know (Java, go-spiffe).
func matches(leaf *x509.Certificate, key []byte) ([]byte, error) {
	block, signer, err := parseKey(key)
	if err != nil {
		return nil, reject(Malformed, "private key: %v", err)
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return nil, reject(KeyMismatch, "the private key does not belong to the certificate with serial %s", Serial(leaf))
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, reject(Malformed, "private key: a %s cannot be written as PKCS#8", block.Type)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// identifies checks the SPIFFE ID. An X.509-SVID has exactly one URI SAN
// (SPIFFE X509-SVID, section 2).
func identifies(leaf *x509.Certificate, want spiffeid.ID) error {
	if len(leaf.URIs) != 1 {
		return reject(WrongIdentity, "want one URI SAN, got %d", len(leaf.URIs))
	}
	got, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return reject(WrongIdentity, "URI SAN %.300q is no SPIFFE ID: %v", leaf.URIs[0], err)
	}
	if want.IsZero() || got != want {
		return reject(WrongIdentity, "want SPIFFE ID %q, got %q", want, got)
	}
	return nil
}

// isForBothSides: an edge is a client of the mesh and may be a server in it. To
// be either it has to sign, where the certificate limits the key usage at all
// (X509-SVID, section 4.3, asks for digitalSignature).
func isForBothSides(leaf *x509.Certificate) error {
	if leaf.IsCA {
		return reject(WrongUsage, "the first certificate is a CA's")
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return reject(WrongUsage, "the key usage lacks digital signature")
	}
	for _, usage := range []struct {
		name string
		eku  x509.ExtKeyUsage
	}{{"client auth", x509.ExtKeyUsageClientAuth}, {"server auth", x509.ExtKeyUsageServerAuth}} {
		if !slices.Contains(leaf.ExtKeyUsage, usage.eku) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
			return reject(WrongUsage, "the extended key usage lacks %s", usage.name)
		}
	}
	return nil
}

// backdating is by how much Istio's CA dates a certificate back
// (ClockSkewGracePeriod in security/pkg/pki/util). With a lifetime of a minute
// that is two thirds of the validity.
const backdating = 2 * time.Minute

// issued is the end of the backdating, or two thirds into the validity where that
// is short.
func issued(leaf *x509.Certificate) time.Time {
	return leaf.NotBefore.Add(min(backdating, leaf.NotAfter.Sub(leaf.NotBefore)*2/3))
}

func usefulUntil(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-Floor(leaf.NotAfter.Sub(issued(leaf))))
}

func isValid(leaf *x509.Certificate, now time.Time) error {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	rest := leaf.NotAfter.Sub(now)
	switch {
	case now.Before(leaf.NotBefore):
		return reject(NotYetValid, "valid from %s, and it is %s", at(leaf.NotBefore), at(now))
	case rest <= 0:
		return reject(Expired, "valid until %s, and it is %s", at(leaf.NotAfter), at(now))
	case now.After(usefulUntil(leaf)):
		return reject(Expired, "valid until %s only, and it is %s", at(leaf.NotAfter), at(now))
	}
	return nil
}

// verify leads the chain to a root, once as a client's and once as a server's:
// an intermediate may be for one of them only. The identity is checked
// elsewhere.
func verify(chain, roots []*x509.Certificate, now time.Time) error {
	if len(roots) == 0 {
		return reject(Untrusted, "no root certificate that is valid now")
	}
	options := x509.VerifyOptions{Roots: pool(roots), Intermediates: pool(chain[1:]), CurrentTime: now}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		options.KeyUsages = []x509.ExtKeyUsage{usage}
		if _, err := chain[0].Verify(options); err != nil {
			return reject(Untrusted, "issuer %.200q: %v", chain[0].Issuer, err)
		}
	}
	return nil
}

func pool(list []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range list {
		p.AddCert(c)
	}
	return p
}

// withoutRoot drops the self-signed certificates behind the leaf: they are
// trust anchors, not links of the chain.
func withoutRoot(chain []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(chain, func(c *x509.Certificate) bool { return c != chain[0] && isSelfSigned(c) })
}

// isSelfSigned accepts old hash functions too, as roots of companies have them:
// nothing is trusted because of that signature.
func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// union joins lists of roots, each certificate once, in a stable order.
func union(lists ...[]*x509.Certificate) []*x509.Certificate {
	all := slices.Concat(lists...)
	slices.SortFunc(all, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	return slices.CompactFunc(all, func(a, b *x509.Certificate) bool { return a.Equal(b) })
}

// anchors drops the roots that are not valid at the moment, for they verify
// nothing and one forgotten in a bundle must not make it worthless, and those
// that are no CA's: a leaf among the roots would vouch for itself.
func anchors(roots []*x509.Certificate, now time.Time) []*x509.Certificate {
	return slices.DeleteFunc(roots, func(c *x509.Certificate) bool {
		isCA := c.Version < 3 || c.BasicConstraintsValid && c.IsCA // version 1 knows no constraints
		return !isCA || now.Before(c.NotBefore) || now.After(c.NotAfter)
	})
}
