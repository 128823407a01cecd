package certtest_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
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

func TestSPIFFELeafHasOneNameAndTheRequestedKey(t *testing.T) {
	const id = "spiffe://cluster.local/ns/edge/sa/emissary"
	root := certtest.NewAuthority(t)
	for algorithm, keyPEM := range map[x509.PublicKeyAlgorithm]func(*certtest.Pair) []byte{
		x509.RSA:     func(p *certtest.Pair) []byte { return p.PKCS1PEM(t) },
		x509.ECDSA:   func(p *certtest.Pair) []byte { return p.SEC1PEM(t) },
		x509.Ed25519: func(p *certtest.Pair) []byte { return p.KeyPEM },
	} {
		leaf := root.SPIFFELeaf(t, id, certtest.KeyType(algorithm))
		assert.Equal(t, algorithm, leaf.Certificate.PublicKeyAlgorithm)
		require.Len(t, leaf.Certificate.URIs, 1)
		assert.Equal(t, id, leaf.Certificate.URIs[0].String())
		_, err := tls.X509KeyPair(leaf.ChainPEM, keyPEM(leaf))
		assert.NoError(t, err, algorithm)
	}
}

func TestCrossSignedAuthorityLeadsToBothRoots(t *testing.T) {
	old, next := certtest.NewAuthority(t, certtest.CommonName("old")), certtest.NewAuthority(t, certtest.CommonName("next"))
	leaf := next.Leaf(t, certtest.DNSNames("edge.test")).TLS(t)
	assert.NoError(t, verify(leaf, next.Pool()))
	assert.Error(t, verify(leaf, old.Pool()))

	bridge := old.CrossSign(t, next)
	leaf.Certificate = append(leaf.Certificate, bridge.Certificate.Raw)
	assert.NoError(t, verify(leaf, old.Pool()))
	renewed := next.CrossSign(t, next)
	assert.NoError(t, verify(leaf, renewed.Pool()), "the same authority, with another certificate")
	assert.NotEqual(t, next.Certificate.SerialNumber, renewed.Certificate.SerialNumber)
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
