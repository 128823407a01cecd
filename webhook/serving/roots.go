package serving

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cert-manager/cert-manager/pkg/util/pki"
)

// roots is a trust bundle: certificates in the order in which they came, each once.
type roots []*x509.Certificate

// readRoots reads what is whole in a bundle. It says false when something is
// not, or when the bytes are not the form that pem writes.
func readRoots(bundle []byte) (roots, bool) {
	if len(bundle) == 0 {
		return nil, false
	}
	var found roots
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		// One certificate that does not parse must not cost the others.
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			found = found.with(certificate)
		}
	}
	return found, bytes.Equal(found.pem(), bundle)
}

func (r roots) pem() []byte {
	var bundle bytes.Buffer
	for _, certificate := range r {
		encoded, err := pki.EncodeX509(certificate)
		if err != nil {
			continue // only a nil certificate fails to encode
		}
		bundle.Write(encoded)
	}
	return bundle.Bytes()
}

func (r roots) has(certificate *x509.Certificate) bool {
	return slices.ContainsFunc(r, certificate.Equal)
}

func (r roots) hasAll(others roots) bool {
	return !slices.ContainsFunc(others, func(c *x509.Certificate) bool { return !r.has(c) })
}

func (r roots) with(others ...*x509.Certificate) roots {
	all := slices.Clone(r)
	for _, certificate := range others {
		if !all.has(certificate) {
			all = append(all, certificate)
		}
	}
	return all
}

func (r roots) without(others ...*x509.Certificate) roots {
	return slices.DeleteFunc(slices.Clone(r), roots(others).has)
}

// usable are the roots that a leaf may still be verified by.
func (r roots) usable(now time.Time) roots {
	return slices.DeleteFunc(slices.Clone(r), func(c *x509.Certificate) bool {
		return !c.IsCA || now.After(c.NotAfter)
	})
}

// String names the certificates, for logs.
func (r roots) String() string {
	names := make([]string, 0, len(r))
	for _, certificate := range r {
		names = append(names, name(certificate))
	}
	return strings.Join(names, ", ")
}

// issuerOf finds the root that issued leaf, or nil.
func (r roots) issuerOf(leaf *x509.Certificate) *x509.Certificate {
	for _, certificate := range r {
		if bytes.Equal(certificate.RawSubject, leaf.RawIssuer) && bytes.Equal(certificate.SubjectKeyId, leaf.AuthorityKeyId) {
			return certificate
		}
	}
	return nil
}

func name(certificate *x509.Certificate) string {
	return fmt.Sprintf("%s (until %s)", certificate.Subject.CommonName, certificate.NotAfter.UTC().Format(time.RFC3339))
}
