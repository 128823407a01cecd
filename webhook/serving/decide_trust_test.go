package serving

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

func TestDecideTrust(t *testing.T) {
	root, other := certtest.NewAuthority(t), certtest.NewAuthority(t)
	intermediate := root.Intermediate(t)
	service := admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: "mesh", Name: "isthmus-webhook"}}
	leaf := root.Leaf(t, certtest.DNSNames("isthmus-webhook.mesh.svc"))
	signed := intermediate.Leaf(t, certtest.DNSNames("isthmus-webhook.mesh.svc"))
	view := func(kind string, clients ...admissionregistrationv1.WebhookClientConfig) configurationView {
		v := configurationView{found: true, kind: kind, name: "isthmus-injector"}
		for i, client := range clients {
			v.addWebhook([]string{"a.isthmus.dev", "b.isthmus.dev"}[i], client)
		}
		return v
	}
	with := func(roots ...*certtest.Pair) admissionregistrationv1.WebhookClientConfig {
		client := *service.DeepCopy()
		for _, root := range roots {
			client.CABundle = append(client.CABundle, root.CertificatePEM...)
		}
		return client
	}
	atURL := with(root)
	atURL.Service, atURL.URL = nil, ptr.To("https://isthmus-webhook.mesh.svc:8443/inject")
	elsewhere := with(root)
	elsewhere.Service.Namespace = "other"
	const unverified = `does not verify the serving certificate: x509: `

	tests := map[string]struct {
		mutating, validating configurationView
		chain                []*x509.Certificate
		after                time.Duration
		want, wantValidating string // the errors; empty for none
	}{
		"if both have the root, expect trust":                    {view(mutating, with(root), with(root)), view(validating, with(root)), nil, 0, "", ""},
		"if both have it among others, expect trust":             {view(mutating, with(other, root)), view(validating, with(root, other)), nil, 0, "", ""},
		"if an intermediate comes along, expect trust":           {view(mutating, with(root)), view(validating, with(root)), []*x509.Certificate{signed.Certificate, intermediate.Certificate}, 0, "", ""},
		"if the intermediate is missing, expect none":            {view(mutating, with(root)), view(validating, with(intermediate)), []*x509.Certificate{signed.Certificate}, 0, unverified + "certificate signed by unknown authority", ""},
		"if a URL has the name, expect trust":                    {view(mutating, atURL), view(validating, atURL), nil, 0, "", ""},
		"if one webhook has no caBundle, expect its name":        {view(mutating, with(root), service), view(validating, with(root)), nil, 0, `webhook "b.isthmus.dev" of mutatingwebhookconfiguration "isthmus-injector" has no caBundle yet`, ""},
		"if the caBundle is no certificate, expect none":         {view(mutating, admissionregistrationv1.WebhookClientConfig{Service: service.Service, CABundle: []byte("x")}), view(validating, with(root)), nil, 0, "has no caBundle yet", ""},
		"if only the validating one has another, expect that":    {view(mutating, with(root)), view(validating, with(other)), nil, 0, "", unverified},
		"if the validating one does not exist, expect trust":     {view(mutating, with(root)), configurationView{kind: validating}, nil, 0, "", ""},
		"if the mutating one does not exist, expect the way out": {configurationView{kind: mutating, name: "isthmus-injector"}, view(validating, with(root)), nil, 0, `mutatingwebhookconfiguration "isthmus-injector" does not exist: API servers send nothing to the webhook; run helm upgrade to create it again`, ""},
		"if it is of another Service, expect its name":           {view(mutating, elsewhere), view(validating, with(root)), nil, 0, unverified + "certificate is valid for isthmus-webhook.mesh.svc, not isthmus-webhook.other.svc", ""},
		"if it has expired, expect none":                         {view(mutating, with(root)), view(validating, with(root)), nil, 1000 * time.Hour, unverified + "certificate has expired", unverified},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			chain := test.chain
			if chain == nil {
				chain = []*x509.Certificate{leaf.Certificate}
			}
			got := decideTrust([]configurationView{test.mutating, test.validating}, chain, time.Now().Add(test.after))
			for want, err := range map[*string]error{&test.want: got.untrusted, &test.wantValidating: got.unvalidated} {
				if *want == "" {
					assert.NoError(t, err)
				} else {
					assert.ErrorContains(t, err, *want)
				}
			}
		})
	}
}
