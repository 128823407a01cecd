// Package certtest stands for certificate authorities: it makes the certificates of
// tests, so that the repository contains no key. Keys are ECDSA P-256 unless a test asks
// for others, because a test may make hundreds.
//
// Tiers: all, and hack/demo.
package certtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Pair is a certificate with its key and its chain, without the root.
type Pair struct {
	// Certificate is the parsed certificate.
	Certificate *x509.Certificate
	// Key belongs to Certificate.
	Key crypto.Signer
	// CertificatePEM is the certificate alone.
	CertificatePEM []byte
	// ChainPEM is the certificate and the intermediates above it, without the root.
	ChainPEM []byte
	// KeyPEM is the key in PKCS#8.
	KeyPEM []byte
}

// String keeps the key out of failure messages.
func (p *Pair) String() string { return p.Certificate.Subject.String() }

// GoString keeps the key out of failure messages.
func (p *Pair) GoString() string { return p.String() }

// TLS returns the certificate for a tls.Config.
func (p *Pair) TLS(t testing.TB) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(p.ChainPEM, p.KeyPEM)
	require.NoError(t, err)
	return pair
}

// Pool trusts this certificate alone.
func (p *Pair) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Certificate)
	return pool
}

// NewAuthority creates a self-signed root that is valid from an hour ago for 25 hours.
func NewAuthority(t testing.TB, options ...Option) *Pair {
	t.Helper()
	return create(t, nil, append([]Option{CommonName("test root"), asAuthority}, options...))
}

// Intermediate creates an intermediate authority that p signs.
func (p *Pair) Intermediate(t testing.TB, options ...Option) *Pair {
	t.Helper()
	return create(t, p, append([]Option{CommonName("test intermediate"), asAuthority}, options...))
}

// Leaf creates a certificate for servers and clients that p signs. It is valid from an
// hour ago for 25 hours and has only the names that options set.
func (p *Pair) Leaf(t testing.TB, options ...Option) *Pair {
	t.Helper()
	return create(t, p, options)
}

// SPIFFELeaf is a Leaf whose only name is the SPIFFE ID.
func (p *Pair) SPIFFELeaf(t testing.TB, id string, options ...Option) *Pair {
	t.Helper()
	uri, err := url.Parse(id)
	require.NoError(t, err)
	return p.Leaf(t, append([]Option{URIs(uri)}, options...)...)
}

// CrossSign creates another certificate for the authority other, with its name and
// key. p signs it; if p is other, it is self-signed.
func (p *Pair) CrossSign(t testing.TB, other *Pair, options ...Option) *Pair {
	t.Helper()
	issuer := p
	if p == other {
		issuer = nil
	}
	name := CommonName(other.Certificate.Subject.CommonName)
	return sign(t, issuer, other.Key, append([]Option{name, asAuthority}, options...))
}

// PKCS1PEM is an RSA key in a block "RSA PRIVATE KEY".
func (p *Pair) PKCS1PEM(t testing.TB) []byte {
	t.Helper()
	key, ok := p.Key.(*rsa.PrivateKey)
	require.True(t, ok, "%T is no RSA key", p.Key)
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

// SEC1PEM is an ECDSA key in a block "EC PRIVATE KEY".
func (p *Pair) SEC1PEM(t testing.TB) []byte {
	t.Helper()
	key, ok := p.Key.(*ecdsa.PrivateKey)
	require.True(t, ok, "%T is no ECDSA key", p.Key)
	der, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

func create(t testing.TB, issuer *Pair, options []Option) *Pair {
	t.Helper()
	var template x509.Certificate
	for _, option := range options {
		option(&template)
	}
	return sign(t, issuer, newKey(t, template.PublicKeyAlgorithm), options)
}

func newKey(t testing.TB, algorithm x509.PublicKeyAlgorithm) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch algorithm {
	case x509.RSA:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case x509.Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case x509.ECDSA, x509.UnknownPublicKeyAlgorithm:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		require.Fail(t, "want RSA, ECDSA or Ed25519", "got %s", algorithm)
	}
	require.NoError(t, err)
	return key
}

func sign(t testing.TB, issuer *Pair, key crypto.Signer, options []Option) *Pair {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	require.NoError(t, err)

	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, option := range options {
		option(template)
	}

	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)

	p := &Pair{
		Certificate:    certificate,
		Key:            key,
		CertificatePEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
	p.ChainPEM = p.CertificatePEM
	if issuer != nil && issuer.Certificate.CheckSignatureFrom(issuer.Certificate) != nil {
		p.ChainPEM = append(append([]byte{}, p.CertificatePEM...), issuer.ChainPEM...)
	}
	return p
}
