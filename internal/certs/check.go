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

// matchKey checks that the key belongs to the leaf and returns it as one PEM block
// in PKCS#8, so that the Secret has the same encoding from every source. Istio's
// agent writes PKCS#1 and SEC 1, which some readers of TLS Secrets do not support
// (Java, go-spiffe).
func matchKey(leaf *x509.Certificate, key []byte) ([]byte, error) {
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

// checkIdentity checks the SPIFFE ID. An X.509-SVID has exactly one URI SAN (SPIFFE
// X509-SVID, section 2).
func checkIdentity(leaf *x509.Certificate, want spiffeid.ID) error {
	if len(leaf.URIs) != 1 {
		return reject(WrongIdentity, "want one URI SAN, got %d", len(leaf.URIs))
	}
	got, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return reject(WrongIdentity, "URI SAN %.300q is not a SPIFFE ID: %v", leaf.URIs[0], err)
	}
	if want.IsZero() || got != want {
		return reject(WrongIdentity, "want SPIFFE ID %q, got %q", want, got)
	}
	return nil
}

// checkUsage checks that the leaf is for clients and servers: an edge is a client of
// the mesh and may be a server in it. Both sign, so a key usage, if there is one,
// has to allow that (X509-SVID, section 4.3, requires digitalSignature).
func checkUsage(leaf *x509.Certificate) error {
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

// backdating is how far before the issuance Istio's CA sets NotBefore
// (ClockSkewGracePeriod in security/pkg/pki/util). With a lifetime of a minute that
// is two thirds of the validity.
const backdating = 2 * time.Minute

// issued returns the end of the backdating, or two thirds into a validity that is
// shorter.
func issued(leaf *x509.Certificate) time.Time {
	return leaf.NotBefore.Add(min(backdating, leaf.NotAfter.Sub(leaf.NotBefore)*2/3))
}

func usefulUntil(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-MinRemainingLife(leaf.NotAfter.Sub(issued(leaf))))
}

func checkValidity(leaf *x509.Certificate, now time.Time) error {
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

// verifyChain verifies the chain up to a root, once for a client and once for a
// server: an intermediate may be for one of them only. checkIdentity checks the
// identity.
func verifyChain(chain, roots []*x509.Certificate, now time.Time) error {
	if len(roots) == 0 {
		return reject(Untrusted, "no root certificate that is valid now")
	}
	options := x509.VerifyOptions{Roots: certPool(roots), Intermediates: certPool(chain[1:]), CurrentTime: now}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		options.KeyUsages = []x509.ExtKeyUsage{usage}
		if _, err := chain[0].Verify(options); err != nil {
			return reject(Untrusted, "issuer %.200q: %v", chain[0].Issuer, err)
		}
	}
	return nil
}

func certPool(list []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range list {
		p.AddCert(c)
	}
	return p
}

// withoutRoot drops the self-signed certificates behind the leaf: they are trust
// anchors and do not belong in the chain.
func withoutRoot(chain []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(chain, func(c *x509.Certificate) bool { return c != chain[0] && isSelfSigned(c) })
}

// isSelfSigned reports whether a certificate is self-signed. It also accepts old hash
// functions, which corporate roots still have: nothing is trusted because of this
// signature.
func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// mergeRoots returns every root of the lists once, in a stable order.
func mergeRoots(lists ...[]*x509.Certificate) []*x509.Certificate {
	all := slices.Concat(lists...)
	slices.SortFunc(all, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	return slices.CompactFunc(all, func(a, b *x509.Certificate) bool { return a.Equal(b) })
}

// validAnchors drops the roots that are not valid now: they verify nothing, and a
// forgotten one must not invalidate a bundle. It also drops those that are not a
// CA's: a leaf among the roots would verify itself.
func validAnchors(roots []*x509.Certificate, now time.Time) []*x509.Certificate {
	return slices.DeleteFunc(roots, func(c *x509.Certificate) bool {
		isCA := c.Version < 3 || c.BasicConstraintsValid && c.IsCA // version 1 has no basic constraints
		return !isCA || now.Before(c.NotBefore) || now.After(c.NotAfter)
	})
}
