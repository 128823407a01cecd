package istioca

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// newKey creates a private key and a certificate signing request for a SPIFFE ID, both
// as PEM. istiod takes the identity from the token and uses only the key of the
// request; other authorities (istio-csr) require the identity in the request too.
func newKey(id spiffeid.ID, algorithm certs.KeyAlgorithm) (key, csr []byte, err error) {
	private, err := algorithm.Generate()
	if err != nil {
		return nil, nil, fmt.Errorf("generate a private key: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a private key: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}}, private)
	if err != nil {
		return nil, nil, fmt.Errorf("create a certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), nil
}
