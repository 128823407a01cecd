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

// roots are the certificates of a trust bundle, in their order, without duplicates.
type roots []*x509.Certificate

// parseRoots returns the certificates of a bundle that parse. canonical is false when
// one does not, or when encode would write the bundle differently.
func parseRoots(bundle []byte) (found roots, canonical bool) {
	if len(bundle) == 0 {
		return nil, false
	}
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		// A certificate that does not parse must not invalidate the others.
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			found = found.union(certificate)
		}
	}
	return found, bytes.Equal(found.encode(), bundle)
}

// encode returns the bundle as PEM.
func (r roots) encode() []byte {
	var bundle bytes.Buffer
	for _, certificate := range r {
		encoded, err := pki.EncodeX509(certificate)
		if err != nil {
			continue // only a nil certificate cannot be encoded
		}
		bundle.Write(encoded)
	}
	return bundle.Bytes()
}

func (r roots) contains(certificate *x509.Certificate) bool {
	return slices.ContainsFunc(r, certificate.Equal)
}

func (r roots) containsAll(others roots) bool {
	return !slices.ContainsFunc(others, func(c *x509.Certificate) bool { return !r.contains(c) })
}

// union returns r and then the others that it lacks.
func (r roots) union(others ...*x509.Certificate) roots {
	union := slices.Clone(r)
	for _, certificate := range others {
		if !union.contains(certificate) {
			union = append(union, certificate)
		}
	}
	return union
}

// difference returns r without the others.
func (r roots) difference(others ...*x509.Certificate) roots {
	return slices.DeleteFunc(slices.Clone(r), roots(others).contains)
}

// usable returns the roots that can verify a leaf at now.
func (r roots) usable(now time.Time) roots {
	return slices.DeleteFunc(slices.Clone(r), func(c *x509.Certificate) bool {
		return !c.IsCA || now.After(c.NotAfter)
	})
}

// String lists the certificates, for logs.
func (r roots) String() string {
	descriptions := make([]string, 0, len(r))
	for _, certificate := range r {
		descriptions = append(descriptions, describeCertificate(certificate))
	}
	return strings.Join(descriptions, ", ")
}

// issuerOf returns the root that issued leaf, or nil.
func (r roots) issuerOf(leaf *x509.Certificate) *x509.Certificate {
	for _, certificate := range r {
		if bytes.Equal(certificate.RawSubject, leaf.RawIssuer) && bytes.Equal(certificate.SubjectKeyId, leaf.AuthorityKeyId) {
			return certificate
		}
	}
	return nil
}

func describeCertificate(c *x509.Certificate) string {
	return fmt.Sprintf("%s (until %s)", c.Subject.CommonName, c.NotAfter.UTC().Format(time.RFC3339))
}
