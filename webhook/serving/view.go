package serving

import (
	"bytes"
	"encoding/json"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// view is what a configuration tells the API servers to trust.
type view struct {
	found           bool
	name            string
	resourceVersion string
	webhooks        []webhookView
}

type webhookView struct {
	name     string
	caBundle []byte
	roots    roots
}

func viewOf(configuration *admissionregistrationv1.MutatingWebhookConfiguration) view {
	v := view{found: true, name: configuration.Name, resourceVersion: configuration.ResourceVersion}
	for _, webhook := range configuration.Webhooks {
		trusted, _ := readRoots(webhook.ClientConfig.CABundle)
		v.webhooks = append(v.webhooks, webhookView{name: webhook.Name, caBundle: webhook.ClientConfig.CABundle, roots: trusted})
	}
	return v
}

// missing says that there is no configuration.
func (v view) missing() string {
	return fmt.Sprintf("mutatingwebhookconfiguration %q does not exist", v.name)
}

// carriesAll is nil when every webhook trusts every given root, and names the
// first one that does not.
func (v view) carriesAll(wanted roots) error {
	if !v.found {
		return fmt.Errorf("there is no mutatingwebhookconfiguration %q yet", v.name)
	}
	for _, webhook := range v.webhooks {
		if !webhook.roots.hasAll(wanted) {
			return fmt.Errorf("webhook %q of mutatingwebhookconfiguration %q does not carry the CA %s",
				webhook.name, v.name, wanted.without(webhook.roots...))
		}
	}
	return nil
}

// roots are all that any of the webhooks trusts.
func (v view) roots() roots {
	var all roots
	for _, webhook := range v.webhooks {
		all = all.with(webhook.roots...)
	}
	return all
}

// operation is one operation of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patch gives every webhook the bundle and touches nothing else; nil when there is
// nothing to do. It fails at the API server when the configuration is no longer
// the one that was seen, so that an older bundle never replaces a newer one.
func (v view) patch(bundle []byte) ([]byte, error) {
	operations := []operation{{Op: "test", Path: "/metadata/resourceVersion", Value: v.resourceVersion}}
	for i, webhook := range v.webhooks {
		if bytes.Equal(webhook.caBundle, bundle) {
			continue
		}
		operations = append(operations, operation{
			// "add" replaces a field that is there.
			Op: "add", Path: fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), Value: bundle,
		})
	}
	if len(operations) == 1 {
		return nil, nil
	}
	return json.Marshal(operations)
}
