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

// caBackdate is how long before its creation an authority becomes valid, for the
// API server's clock may be behind.
const caBackdate = time.Hour

// pair is a certificate authority: a self-signed root and its key. It prints
// itself without the key.
type pair struct {
	root    *x509.Certificate
	key     crypto.Signer
	certPEM []byte
	keyPEM  []byte
}

// String names the authority by its subject and serial number.
func (p *pair) String() string {
	if p == nil {
		return "none"
	}
	return name(p.root)
}

// GoString keeps %#v from printing the key.
func (p *pair) GoString() string { return p.String() }

// Format keeps every other verb from printing the key.
func (p *pair) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(p.String())) }

// MarshalLog keeps structured loggers from walking into the key.
func (p *pair) MarshalLog() any { return p.String() }

func (p *pair) is(other *pair) bool {
	if p == nil || other == nil {
		return p == other
	}
	return p.root.Equal(other.root)
}

// renewAt is when the next authority must be announced: with a third of the
// life left, as cert-manager does.
func (p *pair) renewAt() time.Time {
	return twoThirds(p.root)
}

// newPair makes an authority that is valid for ttl from now.
func newPair(now time.Time, ttl time.Duration) (*pair, error) {
	key, err := pki.GenerateECPrivateKey(pki.ECCurve256)
	if err != nil {
		return nil, fmt.Errorf("make the CA key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make the CA serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// Two roots stand side by side in a bundle: a name of its own for each
		// tells people apart what key identifiers tell programs.
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
	return &pair{root: root, key: key, certPEM: certPEM, keyPEM: keyPEM}, nil
}

// readPair reads an authority back and refuses one that could not sign a leaf
// which verifies at now.
func readPair(certPEM, keyPEM []byte, now time.Time) (*pair, error) {
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
		return nil, errors.New("the certificate is no certificate authority")
	}
	if now.After(root.NotAfter) {
		return nil, fmt.Errorf("the certificate expired at %s", root.NotAfter.Format(time.RFC3339))
	}
	if err := root.CheckSignatureFrom(root); err != nil {
		return nil, fmt.Errorf("the certificate is not self-signed: %w", err)
	}
	return &pair{root: root, key: key, certPEM: certPEM, keyPEM: keyPEM}, nil
}
