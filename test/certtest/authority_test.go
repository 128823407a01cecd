package certtest_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/certtest"
)

func TestLeafVerifiesToItsRootAndToNoOther(t *testing.T) {
	root, stranger := certtest.NewAuthority(t), certtest.NewAuthority(t)
	leaf := root.Intermediate(t).Leaf(t, certtest.DNSNames("edge.test"))

	served := leaf.TLS(t)
	require.Len(t, served.Certificate, 2, "leaf and intermediate, without the root")
	assert.NoError(t, verify(served, root.Pool()))
	assert.ErrorContains(t, verify(served, stranger.Pool()), "unknown authority")
}

func TestPairPrintsNoKey(t *testing.T) {
	pair := certtest.NewAuthority(t)
	for _, verb := range []string{"%s", "%v", "%+v", "%#v"} {
		printed := fmt.Sprintf(verb, pair)
		assert.Equal(t, "CN=test root", printed, verb)
	}
}

func verify(served tls.Certificate, pool *x509.CertPool) error {
	intermediates := x509.NewCertPool()
	for _, der := range served.Certificate[1:] {
		if certificate, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(certificate)
		}
	}
	_, err := served.Leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: intermediates, DNSName: "edge.test"})
	return err
}
