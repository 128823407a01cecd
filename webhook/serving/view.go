package serving

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// configurationView is the part of a webhook configuration that is about trust: the
// roots that API servers use to verify the admission server.
type configurationView struct {
	found           bool
	kind, name      string
	resourceVersion string
	webhooks        []webhookView
}

type webhookView struct {
	name string
	// serverName is the name that API servers expect in the certificate.
	serverName string
	caBundle   []byte
	roots      roots
}

func (v *configurationView) addWebhook(name string, client admissionregistrationv1.WebhookClientConfig) {
	trusted, _ := parseRoots(client.CABundle)
	v.webhooks = append(v.webhooks, webhookView{name: name, serverName: serverName(client), caBundle: client.CABundle, roots: trusted})
}

// serverName is the name by which API servers verify the server of a webhook.
func serverName(client admissionregistrationv1.WebhookClientConfig) string {
	switch {
	case client.Service != nil:
		return client.Service.Name + "." + client.Service.Namespace + ".svc"
	case client.URL != nil:
		if u, err := url.Parse(*client.URL); err == nil {
			return u.Hostname()
		}
	}
	return ""
}

// mergeViews returns one view with the webhooks of all: it trusts a root when every
// webhook of each trusts it. The first view is the one that must exist.
func mergeViews(views []configurationView) configurationView {
	merged := views[0]
	for _, v := range views[1:] {
		merged.webhooks = append(slices.Clip(merged.webhooks), v.webhooks...)
	}
	return merged
}

// notFound is the message that the configuration does not exist.
func (v configurationView) notFound() string {
	return fmt.Sprintf("%s %q does not exist", v.kind, v.name)
}

// trusts reports whether the configuration exists and every webhook trusts every
// given root.
func (v configurationView) trusts(wanted ...*x509.Certificate) bool {
	return v.found && !slices.ContainsFunc(v.webhooks, func(w webhookView) bool { return !w.roots.containsAll(wanted) })
}

// roots are the roots that any of the webhooks trusts.
func (v configurationView) roots() roots {
	var union roots
	for _, webhook := range v.webhooks {
		union = union.union(webhook.roots...)
	}
	return union
}

// patchOperation is one operation of a JSON patch.
type patchOperation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// caBundlePatch is the JSON patch that gives every webhook the bundle and changes
// nothing else; nil when all have it. The API server refuses the patch when the
// configuration changed since it was read, so an older bundle never replaces a newer
// one.
func (v configurationView) caBundlePatch(bundle []byte) ([]byte, error) {
	operations := []patchOperation{{Op: "test", Path: "/metadata/resourceVersion", Value: v.resourceVersion}}
	for i, webhook := range v.webhooks {
		if bytes.Equal(webhook.caBundle, bundle) {
			continue
		}
		operations = append(operations, patchOperation{
			// "add" replaces a field that exists.
			Op: "add", Path: fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), Value: bundle,
		})
	}
	if len(operations) == 1 {
		return nil, nil
	}
	return json.Marshal(operations)
}
