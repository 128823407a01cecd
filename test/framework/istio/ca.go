package istio

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// CA is an authority to plug into istiod: the content of Secret cacerts, which istiod
// reads as files.
type CA struct {
	// Certificate is the signing certificate, and Key its key.
	Certificate, Key []byte
	// Chain is Certificate and the intermediates above it, without the root.
	Chain []byte
	// Roots are the trust anchors that istiod publishes. They contain the root above
	// Certificate.
	Roots []byte
}

// NewCA returns an authority that signs with signer, an intermediate of the first root,
// and publishes all roots.
func NewCA(signer *certtest.Pair, roots ...*certtest.Pair) *CA {
	var all bytes.Buffer
	for _, root := range roots {
		all.Write(root.CertificatePEM)
	}
	return &CA{Certificate: signer.CertificatePEM, Key: signer.KeyPEM, Chain: signer.ChainPEM, Roots: all.Bytes()}
}

// String prints no key.
func (*CA) String() string { return "istio.CA{redacted}" }

// GoString prints no key.
func (c *CA) GoString() string { return c.String() }

func (i *Istiod) caFolder() string { return filepath.Join(i.folder, "cacerts") }

// writeCA writes the authority where istiod expects a mounted Secret cacerts, or
// removes it.
func (i *Istiod) writeCA() error {
	if i.Options.CA == nil {
		return os.RemoveAll(i.caFolder())
	}
	if err := os.Mkdir(i.caFolder(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for name, content := range map[string][]byte{
		"ca-cert.pem": i.Options.CA.Certificate, "ca-key.pem": i.Options.CA.Key,
		"cert-chain.pem": i.Options.CA.Chain, "root-cert.pem": i.Options.CA.Roots,
	} {
		if err := os.WriteFile(filepath.Join(i.caFolder(), name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
