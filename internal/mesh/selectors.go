package mesh

import (
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// The labels that the selectors of Istio's injector use besides revisionLabel.
const (
	injectionLabel = "istio-injection"
	injectLabel    = "sidecar.istio.io/inject"
)

// servedRevisions returns the revisions and tags whose pods a configuration selects.
// It evaluates the selectors, not the labels: when istioctl sets the tag default, it
// takes the default revision's configuration out of service with selectors that
// match nothing.
func servedRevisions(c *admissionv1.MutatingWebhookConfiguration) []string {
	revisions := make(map[string]bool)
	for i := range c.Webhooks {
		namespace, pod := istioRequirements(c.Webhooks[i].NamespaceSelector), istioRequirements(c.Webhooks[i].ObjectSelector)
		for _, revision := range append(selectedRevisions(append(namespace, pod...)), defaultRevision) {
			for _, request := range injectionRequests(revision) {
				if matchesAll(namespace, request.namespace) && matchesAll(pod, request.pod) {
					revisions[normalizeRevision(revision)] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(revisions))
}

// istioRequirements returns the requirements of a selector on Istio's own labels.
// Requirements that operators add, such as "not in the namespaces of the platform",
// do not concern revisions.
func istioRequirements(s *metav1.LabelSelector) labels.Requirements {
	if s == nil {
		return nil // a missing selector selects everything
	}
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil // an API server rejects such a selector
	}
	all, _ := parsed.Requirements()
	return slices.DeleteFunc(slices.Clone(all), func(r labels.Requirement) bool {
		return r.Key() != injectionLabel && !strings.Contains(r.Key(), "istio.io/")
	})
}

// selectedRevisions returns the revisions and tags that the requirements name.
func selectedRevisions(all labels.Requirements) []string {
	var revisions []string
	for _, r := range all {
		if r.Key() == revisionLabel {
			revisions = append(revisions, r.ValuesUnsorted()...)
		}
	}
	return revisions
}

// injectionRequest holds the labels of a namespace and a pod that request injection.
type injectionRequest struct{ namespace, pod labels.Set }

// injectionRequests returns the ways to request the injector of a revision or tag.
// The pod requests the sidecar, as Isthmus does on its behalf in mode istio.
func injectionRequests(revision string) []injectionRequest {
	sidecar := labels.Set{injectLabel: "true"}
	all := []injectionRequest{
		{labels.Set{revisionLabel: revision}, sidecar},
		{nil, labels.Set{injectLabel: "true", revisionLabel: revision}},
	}
	if normalizeRevision(revision) == "" {
		all = append(all, injectionRequest{labels.Set{injectionLabel: "enabled"}, sidecar}, injectionRequest{nil, sidecar})
	}
	return all
}

func matchesAll(all labels.Requirements, set labels.Set) bool {
	return !slices.ContainsFunc(all, func(r labels.Requirement) bool { return !r.Matches(set) })
}
