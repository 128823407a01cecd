package serving

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// trust says which of the configurations make API servers trust a serving certificate.
type trust struct {
	// untrusted says why the mutating configuration does not; nil if it does.
	untrusted error
	// unvalidated says the same of the validating configuration. It is nil also if
	// that configuration does not exist: it is optional.
	unvalidated error
}

// decideTrust verifies a chain of certificates, the leaf first, against the caBundle of
// every webhook, as API servers do.
func decideTrust(views []configurationView, chain []*x509.Certificate, now time.Time) trust {
	var t trust
	for _, v := range views {
		err := v.verify(chain, now)
		switch {
		case v.kind == mutating:
			t.untrusted = err
		case v.found:
			t.unvalidated = err
		}
	}
	return t
}

// verify returns why the API server would not accept the chain from the server of a
// webhook of the configuration.
func (v configurationView) verify(chain []*x509.Certificate, now time.Time) error {
	if !v.found {
		return fmt.Errorf("%s: API servers send nothing to the webhook; run helm upgrade to create it again", v.notFound())
	}
	intermediates := x509.NewCertPool()
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	for _, webhook := range v.webhooks {
		of := fmt.Sprintf("webhook %q of %s %q", webhook.name, v.kind, v.name)
		if len(webhook.roots) == 0 {
			return fmt.Errorf("%s has no caBundle yet, so API servers cannot verify the webhook; wait for cert-manager's cainjector, or set certificate.existing.caBundle", of)
		}
		anchors := x509.NewCertPool()
		for _, root := range webhook.roots {
			anchors.AddCert(root)
		}
		if _, err := chain[0].Verify(x509.VerifyOptions{
			DNSName: webhook.serverName, Roots: anchors, Intermediates: intermediates, CurrentTime: now,
		}); err != nil {
			return fmt.Errorf("the caBundle of %s does not verify the serving certificate: %w", of, err)
		}
	}
	return nil
}

// chainOf parses the chain of a certificate. What does not parse, API servers ignore or
// refuse too.
func chainOf(certificate *tls.Certificate) []*x509.Certificate {
	chain := []*x509.Certificate{certificate.Leaf}
	for _, raw := range slices.Clone(certificate.Certificate)[1:] {
		if parsed, err := x509.ParseCertificate(raw); err == nil {
			chain = append(chain, parsed)
		}
	}
	return chain
}
