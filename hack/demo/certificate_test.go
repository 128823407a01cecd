package main

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

const edgeID = "spiffe://cluster.local/ns/emissary/sa/emissary-ingress"

// oneDay is the validity of the certificates of these tests.
func oneDay() (begin, end time.Time) {
	begin = time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	return begin, begin.Add(24 * time.Hour)
}

func secretOf(certificate, key *certtest.Pair) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: secretName},
		Data:       map[string][]byte{corev1.TLSCertKey: certificate.ChainPEM, corev1.TLSPrivateKeyKey: key.KeyPEM},
	}
}

func TestDescribeCertificate(t *testing.T) {
	root := certtest.NewAuthority(t, certtest.CommonName("mesh"))
	begin, end := oneDay()
	leaf := root.Intermediate(t, certtest.CommonName("istiod")).SPIFFELeaf(t, edgeID, certtest.Validity(begin, end))
	secret := secretOf(leaf, leaf)

	text, err := describeCertificate(secret, []*x509.Certificate{root.Certificate}, time.Now())
	require.NoError(t, err)
	const layout = "2 Jan 2006 15:04:05 UTC"
	assert.Equal(t, "  Subject Alternative Name: URI:"+edgeID+"\n  Issuer: CN=istiod\n"+
		"  Not Before: "+begin.Format(layout)+"\n  Not After:  "+end.Format(layout)+"\n"+
		"  Verifies, for clients and servers, to the root that istiod publishes", text)

	_, err = describeCertificate(secret, []*x509.Certificate{certtest.NewAuthority(t).Certificate}, time.Now())
	assert.ErrorContains(t, err, "tls.crt of secret istio-certs: x509: certificate signed by unknown authority")
	_, err = describeCertificate(secret, []*x509.Certificate{root.Certificate}, end.Add(time.Second))
	assert.ErrorContains(t, err, "expired")
	_, err = describeCertificate(&corev1.Secret{}, nil, time.Now())
	assert.ErrorContains(t, err, "want at least one certificate in PEM")
}

func TestCheckKeyPair(t *testing.T) {
	root := certtest.NewAuthority(t)
	one, two := root.SPIFFELeaf(t, edgeID), root.SPIFFELeaf(t, edgeID)
	assert.NoError(t, checkKeyPair(secretOf(one, one)))
	assert.ErrorContains(t, checkKeyPair(secretOf(one, two)), "private key does not match")

	key, err := generateKey()
	require.NoError(t, err)
	damaged := secretOf(one, one)
	damaged.Data[corev1.TLSPrivateKeyKey] = key
	assert.ErrorContains(t, checkKeyPair(damaged), "private key does not match")
}

func TestIsDemoFile(t *testing.T) {
	for name, expected := range map[string]bool{
		"cluster": true, "istiod": true, "istiod.log": true, "istiod.json": true, "isthmus-controller.kubeconfig": true,
		"istiod.txt": false, "isthmus-webhook": false, "notes.log": false, "": false,
	} {
		assert.Equal(t, expected, isDemoFile(name), "name %q", name)
	}
}
