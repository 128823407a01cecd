package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
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

// usefulUntil returns when less than MinRemainingLife is left of what path allows.
// The life counts from the issue of the leaf; an intermediate is older.
func usefulUntil(path []*x509.Certificate) time.Time {
	end := firstToExpire(path).NotAfter
	return end.Add(-MinRemainingLife(end.Sub(issued(path[0]))))
}

// firstToExpire returns the certificate of a path that expires first; of several, the
// one nearest to the leaf.
func firstToExpire(path []*x509.Certificate) *x509.Certificate {
	return slices.MinFunc(path, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
}

// describe names a certificate of a path.
func describe(path []*x509.Certificate, c *x509.Certificate) string {
	switch {
	case c == path[0]:
		return "the certificate with serial " + Serial(c)
	case c == path[len(path)-1]:
		return fmt.Sprintf("root %.200q, serial %s", c.Subject, Serial(c))
	}
	return fmt.Sprintf("intermediate %.200q, serial %s", c.Subject, Serial(c))
}

// checkValidity checks that every certificate of a path from a leaf is valid now, and
// for long enough to be worth publishing. The texts do not contain the present time, so
// that a certificate that stays expired is reported once.
func checkValidity(path []*x509.Certificate, now time.Time) error {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	first, which := firstToExpire(path), ""
	if first != path[0] {
		which = describe(path, first) + ": "
	}
	switch {
	case now.Before(path[0].NotBefore):
		return reject(NotYetValid, "valid from %s", at(path[0].NotBefore))
	case now.After(usefulUntil(path)):
		return reject(Expired, "%svalid until %s, and the last %s do not count", which, at(first.NotAfter), first.NotAfter.Sub(usefulUntil(path)))
	}
	return nil
}

// verifyChain verifies the chain up to a root, once for a client and once for a
// server: an intermediate may be for one of them only. checkIdentity checks the
// identity. It returns the path to a root that stays valid longest; if the path of
// clients differs from that of servers, the one that expires first.
func verifyChain(chain, roots []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	if len(roots) == 0 {
		return nil, reject(Untrusted, "no root certificate that is valid now")
	}
	byEnd := func(a, b []*x509.Certificate) int {
		return firstToExpire(a).NotAfter.Compare(firstToExpire(b).NotAfter)
	}
	var paths [][]*x509.Certificate
	options := x509.VerifyOptions{Roots: certPool(roots), Intermediates: certPool(chain[1:]), CurrentTime: now}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		options.KeyUsages = []x509.ExtKeyUsage{usage}
		found, err := chain[0].Verify(options)
		if err != nil {
			return nil, reject(Untrusted, "issuer %.200q: %s", chain[0].Issuer, verifyText(err))
		}
		paths = append(paths, slices.MaxFunc(found, byEnd))
	}
	return slices.MinFunc(paths, byEnd), nil
}

// verifyText is the text of a failed verification. That of the standard library
// contains the present time when an intermediate or a root has expired.
func verifyText(err error) string {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return fmt.Sprintf("certificate %.200q is valid from %s until %s", invalid.Cert.Subject,
			invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return err.Error()
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

// MergeRoots returns every root of the lists once, in a stable order.
func MergeRoots(lists ...[]*x509.Certificate) []*x509.Certificate {
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
