package serving

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// view is what a configuration tells the API servers to trust.
type view struct {
	found           bool
	kind, name      string
	resourceVersion string
	webhooks        []webhookView
}

type webhookView struct {
	name     string
	caBundle []byte
	roots    roots
}

func (v *view) add(name string, caBundle []byte) {
	trusted, _ := readRoots(caBundle)
	v.webhooks = append(v.webhooks, webhookView{name: name, caBundle: caBundle, roots: trusted})
}

// together is what several configurations tell: a root is carried when every
// webhook of each carries it. The first is the one that must be there.
func together(all []view) view {
	one := all[0]
	for _, v := range all[1:] {
		one.webhooks = append(slices.Clip(one.webhooks), v.webhooks...)
	}
	return one
}

// missing says that there is no configuration.
func (v view) missing() string {
	return fmt.Sprintf("%s %q does not exist", v.kind, v.name)
}

// carriesAll is nil when every webhook trusts every given root, and names the
// first one that does not.
func (v view) carriesAll(wanted roots) error {
	if !v.found {
		return fmt.Errorf("there is no %s %q yet", v.kind, v.name)
	}
	for _, webhook := range v.webhooks {
		if !webhook.roots.hasAll(wanted) {
			return fmt.Errorf("webhook %q of configuration %q does not carry the CA %s",
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
