// Package certpair reads a key, its certificate chain and the roots to trust from a
// folder. Istio's agent writes this folder file by file, or it is a mounted Secret. The
// package shares no code with the product, so that it checks independently what the
// product writes.
package certpair

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Pair is a key with its certificate chain and the roots that verify the chain.
type Pair struct {
	// Key, Chain and Roots are the contents of the files.
	Key, Chain, Roots []byte
	// Certificate is the key and the chain, Pool the roots, for crypto/tls.
	Certificate tls.Certificate
	Pool        *x509.CertPool
	// ID is the SPIFFE ID, Serial the serial number in upper-case hexadecimal digits.
	ID, Serial string
	NotAfter   time.Time

	digest [sha256.Size]byte
}

// fileNames are the possible file names of a pair, in the order of the search: those
// of Istio's agent, then those of a Secret.
var fileNames = []struct{ key, chain, roots string }{
	{"key.pem", "cert-chain.pem", "root-cert.pem"},
	{"tls.key", "tls.crt", "root-cert.pem"},
	{"tls.key", "tls.crt", "ca.crt"},
}

// Equal reports whether both pairs were read from files with the same content.
func (p *Pair) Equal(other *Pair) bool { return p != nil && other != nil && p.digest == other.digest }

// Load reads the pair in a folder. It returns an error if a file is missing or the files
// do not match. They do not match for a moment while they are written one by one.
func Load(folder string, now time.Time) (*Pair, error) {
	p := &Pair{}
	if err := p.readFiles(folder); err != nil {
		return nil, err
	}
	var err error
	if p.Certificate, err = tls.X509KeyPair(p.Chain, p.Key); err != nil {
		return nil, fmt.Errorf("%s: %w", folder, err)
	}
	p.Pool = x509.NewCertPool()
	if !p.Pool.AppendCertsFromPEM(p.Roots) {
		return nil, fmt.Errorf("%s: no certificate among the roots", folder)
	}
	leaf := p.Certificate.Leaf
	intermediates := x509.NewCertPool()
	for _, der := range p.Certificate.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(c)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: p.Pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, fmt.Errorf("%s: serial %s: %w", folder, Serial(leaf), err)
	}
	p.ID, p.Serial, p.NotAfter = SPIFFEID(leaf), Serial(leaf), leaf.NotAfter
	return p, nil
}

// readFiles reads the files of the first complete set of names.
func (p *Pair) readFiles(folder string) error {
	var missing []string
	for _, n := range fileNames {
		files := [][]byte{nil, nil, nil}
		complete := true
		for i, name := range []string{n.key, n.chain, n.roots} {
			content, err := os.ReadFile(filepath.Join(folder, name))
			if errors.Is(err, fs.ErrNotExist) {
				complete = false
				missing = append(missing, name)
				continue
			}
			if err != nil {
				return err
			}
			files[i] = content
		}
		if complete {
			p.Key, p.Chain, p.Roots = files[0], files[1], files[2]
			p.digest = sha256.Sum256(bytes.Join(files, []byte{0}))
			return nil
		}
	}
	return fmt.Errorf("%s has no key pair: %s and %s are missing", folder, strings.Join(missing[:len(missing)-1], ", "), missing[len(missing)-1])
}

// PEM returns the chain followed by the key, which HAProxy reads from one file.
func (p *Pair) PEM() []byte { return bytes.Join([][]byte{p.Chain, p.Key}, []byte("\n")) }

// SPIFFEID returns the SPIFFE ID of a certificate; empty if it has none.
func SPIFFEID(c *x509.Certificate) string {
	for _, uri := range c.URIs {
		if uri.Scheme == "spiffe" {
			return uri.String()
		}
	}
	return ""
}

// Serial returns the serial number of a certificate in the format of Isthmus and
// openssl.
func Serial(c *x509.Certificate) string { return fmt.Sprintf("%X", c.SerialNumber) }
