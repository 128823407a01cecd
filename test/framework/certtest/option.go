package certtest

import (
	"crypto/x509"
	"net"
	"net/url"
	"time"
)

// Option changes a certificate before it is signed.
type Option func(*x509.Certificate)

// CommonName sets the subject's common name.
func CommonName(name string) Option {
	return func(c *x509.Certificate) { c.Subject.CommonName = name }
}

// DNSNames adds DNS names.
func DNSNames(names ...string) Option {
	return func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, names...) }
}

// IPAddresses adds addresses.
func IPAddresses(addresses ...net.IP) Option {
	return func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, addresses...) }
}

// URIs adds URIs, such as a SPIFFE ID.
func URIs(uris ...*url.URL) Option {
	return func(c *x509.Certificate) { c.URIs = append(c.URIs, uris...) }
}

// Validity sets the validity of a leaf or an authority.
func Validity(notBefore, notAfter time.Time) Option {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = notBefore, notAfter }
}

// Usages replaces the extended key usages. Without an argument there are none.
func Usages(usages ...x509.ExtKeyUsage) Option {
	return func(c *x509.Certificate) { c.ExtKeyUsage = usages }
}

// KeyUsage replaces the key usage. Zero means none.
func KeyUsage(usage x509.KeyUsage) Option {
	return func(c *x509.Certificate) { c.KeyUsage = usage }
}

// KeyType sets the type of the key: x509.RSA (2048 bits), x509.Ed25519 or x509.ECDSA
// (P-256, the default).
func KeyType(algorithm x509.PublicKeyAlgorithm) Option {
	return func(c *x509.Certificate) { c.PublicKeyAlgorithm = algorithm }
}

func asAuthority(c *x509.Certificate) {
	c.IsCA = true
	c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	c.ExtKeyUsage = nil
}
