package mesh

import (
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// The labels that Istio's injector selects by, besides revisionLabel.
const (
	injectionLabel = "istio-injection"
	injectLabel    = "sidecar.istio.io/inject"
)

// served returns the revisions and tags whose pods a configuration is called
// for. Its selectors say so, not its labels: when a tag default is set, istioctl
// takes the default revision's configuration out of service by selectors that
// match nothing.
func served(c *admissionv1.MutatingWebhookConfiguration) []string {
	revisions := make(map[string]bool)
	for i := range c.Webhooks {
		namespace, pod := requirements(c.Webhooks[i].NamespaceSelector), requirements(c.Webhooks[i].ObjectSelector)
		for _, revision := range append(selected(append(namespace, pod...)), defaultRevision) {
			for _, p := range probes(revision) {
				if matches(namespace, p.namespace) && matches(pod, p.pod) {
					revisions[plain(revision)] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(revisions))
}

// requirements returns what a selector wants of Istio's own labels. What
// operators add, such as "not in the namespaces of the platform", says nothing
// about revisions.
func requirements(s *metav1.LabelSelector) labels.Requirements {
	if s == nil {
		return nil // which selects everything
	}
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil // no API server takes such a selector
	}
	all, _ := parsed.Requirements()
	return slices.DeleteFunc(slices.Clone(all), func(r labels.Requirement) bool {
		return r.Key() != injectionLabel && !strings.Contains(r.Key(), "istio.io/")
	})
}

// selected returns the revisions and tags that the requirements name.
func selected(all labels.Requirements) []string {
	var revisions []string
	for _, r := range all {
		if r.Key() == revisionLabel {
			revisions = append(revisions, r.ValuesUnsorted()...)
		}
	}
	return revisions
}

// probe is what namespace and pod say.
type probe struct{ namespace, pod labels.Set }

// probes are the ways to ask for the injector of a revision or tag. The pod asks
// for the sidecar, as Isthmus has it do in mode istio.
func probes(revision string) []probe {
	asks := labels.Set{injectLabel: "true"}
	all := []probe{
		{labels.Set{revisionLabel: revision}, asks},
		{nil, labels.Set{injectLabel: "true", revisionLabel: revision}},
	}
	if plain(revision) == "" {
		all = append(all, probe{labels.Set{injectionLabel: "enabled"}, asks}, probe{nil, asks})
	}
	return all
}

func matches(all labels.Requirements, set labels.Set) bool {
	return !slices.ContainsFunc(all, func(r labels.Requirement) bool { return !r.Matches(set) })
}
