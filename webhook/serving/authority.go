package serving

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
)

// caBackdate is how long before its creation an authority becomes valid, because the
// API server's clock may be behind.
const caBackdate = time.Hour

// authority is a certificate authority: a self-signed root and its key. It prints
// itself without the key.
type authority struct {
	root    *x509.Certificate
	key     crypto.Signer
	certPEM []byte
	keyPEM  []byte
}

// String names the authority by the common name and the end of its root.
func (a *authority) String() string {
	if a == nil {
		return "none"
	}
	return describeCertificate(a.root)
}

// GoString keeps %#v from printing the key.
func (a *authority) GoString() string { return a.String() }

// Format keeps every other verb from printing the key.
func (a *authority) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(a.String())) }

// MarshalLog keeps structured loggers from printing the key.
func (a *authority) MarshalLog() any { return a.String() }

// equal reports whether both have the same root.
func (a *authority) equal(other *authority) bool {
	if a == nil || other == nil {
		return a == other
	}
	return a.root.Equal(other.root)
}

// renewAt is when the next authority is announced.
func (a *authority) renewAt() time.Time { return renewalTime(a.root) }

// newAuthority generates an authority that is valid for ttl from now.
func newAuthority(now time.Time, ttl time.Duration) (*authority, error) {
	key, err := pki.GenerateECPrivateKey(pki.ECCurve256)
	if err != nil {
		return nil, fmt.Errorf("generate the CA key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("generate the CA serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// During a rotation the bundle holds two roots. Programs tell them apart by
		// key identifier, people by this name.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("isthmus-webhook-ca-%.8x", serial.Bytes())},
		NotBefore:             now.Add(-min(caBackdate, ttl/4)),
		NotAfter:              now.Add(ttl),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	certPEM, root, err := pki.SignCertificate(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the CA certificate: %w", err)
	}
	keyPEM, err := pki.EncodePrivateKey(key, cmapi.PKCS8)
	if err != nil {
		return nil, fmt.Errorf("encode the CA key: %w", err)
	}
	return &authority{root: root, key: key, certPEM: certPEM, keyPEM: keyPEM}, nil
}

// parseAuthority parses an authority, and refuses one whose leaves would not verify
// at now.
func parseAuthority(certPEM, keyPEM []byte, now time.Time) (*authority, error) {
	// X509KeyPair checks that certificate and key belong together.
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return nil, err
	}
	root, err := pki.DecodeX509CertificateBytes(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := pki.DecodePrivateKeyBytes(keyPEM)
	if err != nil {
		return nil, err
	}
	if !root.IsCA {
		return nil, errors.New("the certificate is not a certificate authority")
	}
	if now.After(root.NotAfter) {
		return nil, fmt.Errorf("the certificate expired at %s", root.NotAfter.Format(time.RFC3339))
	}
	if err := root.CheckSignatureFrom(root); err != nil {
		return nil, fmt.Errorf("the certificate is not self-signed: %w", err)
	}
	return &authority{root: root, key: key, certPEM: certPEM, keyPEM: keyPEM}, nil
}
