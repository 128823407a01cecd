package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// describeCertificate describes the certificate in a Secret as openssl does. It fails
// when the certificate does not verify to the roots.
func describeCertificate(secret *corev1.Secret, roots []*x509.Certificate, now time.Time) (string, error) {
	chain, err := certs.ParseCertificates(secret.Data[corev1.TLSCertKey])
	if err != nil {
		return "", fmt.Errorf("tls.crt of secret %s: %w", secret.Name, err)
	}
	leaf, anchors, intermediates := chain[0], x509.NewCertPool(), x509.NewCertPool()
	for _, root := range roots {
		anchors.AddCert(root)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: anchors, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return "", fmt.Errorf("tls.crt of secret %s: %w", secret.Name, err)
	}
	names := make([]string, 0, len(leaf.URIs))
	for _, uri := range leaf.URIs {
		names = append(names, "URI:"+uri.String())
	}
	const layout = "2 Jan 2006 15:04:05 MST"
	return fmt.Sprintf("  Subject Alternative Name: %s\n  Issuer: %s\n  Not Before: %s\n  Not After:  %s\n"+
		"  Verifies, for clients and servers, to the root that istiod publishes",
		strings.Join(names, ", "), leaf.Issuer, leaf.NotBefore.UTC().Format(layout), leaf.NotAfter.UTC().Format(layout)), nil
}

// checkKeyPair returns an error when a Secret's key does not belong to its certificate.
func checkKeyPair(secret *corev1.Secret) error {
	_, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	return err
}

// serial is the serial number of a Secret's certificate, which the controller annotates.
func serial(secret *corev1.Secret) string { return secret.Annotations[policy.SerialKey] }

// generateKey returns a new private key, which belongs to no certificate, as PEM.
func generateKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
