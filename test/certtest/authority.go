// Package certtest makes the certificates of tests, so that no key ever lies in the
// repository. Keys are ECDSA P-256: a test may make hundreds.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Pair is a certificate with its key, and with the chain above it but for the root.
type Pair struct {
	// Certificate is the parsed certificate.
	Certificate *x509.Certificate
	// Key belongs to Certificate.
	Key *ecdsa.PrivateKey
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

// TLS returns what a tls.Config serves.
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

// NewAuthority makes a self-signed root, valid from an hour ago until in a day.
func NewAuthority(t testing.TB, options ...Option) *Pair {
	t.Helper()
	return create(t, nil, append([]Option{CommonName("test root"), asAuthority}, options...))
}

// Intermediate makes an authority under p.
func (p *Pair) Intermediate(t testing.TB, options ...Option) *Pair {
	t.Helper()
	return create(t, p, append([]Option{CommonName("test intermediate"), asAuthority}, options...))
}

// Leaf makes a certificate under p for servers and clients, valid from an hour ago
// until in a day, with no name but what options give.
func (p *Pair) Leaf(t testing.TB, options ...Option) *Pair {
	t.Helper()
	return create(t, p, options)
}

func create(t testing.TB, issuer *Pair, options []Option) *Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
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
