package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// DefaultWebhookConfiguration is what the chart calls Isthmus' own
// MutatingWebhookConfiguration.
const DefaultWebhookConfiguration = "isthmus-injector"

// injectorSelector selects the MutatingWebhookConfigurations of Istio's
// injector: one for each revision (mutatingwebhook.yaml of Istio's chart
// istio-discovery) and one for each tag (revision-tags-mwc.yaml there, which
// istioctl renders too). Other products have app=sidecar-injector as well.
const injectorSelector = "app=sidecar-injector," + revisionLabel

// injectors is what the configurations of Istio's injector say at one moment.
type injectors struct {
	// unreadableReason says why they cannot be read; empty when they could.
	unreadableReason string
	// tags by their names.
	tags map[string]tag
	// byRevision says by revision or tag who serves it; the default one is empty.
	byRevision map[string]inject.Injector
}

// readInjectors sorts the configurations. The tags are those of the Istio in the
// namespace; the API server calls every injector, wherever it runs. Own is the
// name of Isthmus' configuration.
func readInjectors(namespace, ownConfiguration string, configurations []*admissionv1.MutatingWebhookConfiguration) injectors {
	// The API server calls them in the order of their names.
	configurations = slices.SortedFunc(slices.Values(configurations), func(a, b *admissionv1.MutatingWebhookConfiguration) int {
		return strings.Compare(a.Name, b.Name)
	})
	found := injectors{tags: readTags(namespace, configurations), byRevision: make(map[string]inject.Injector)}
	for _, c := range configurations {
		injector := inject.Injector{Configuration: c.Name, RunsFirst: c.Name < ownConfiguration, Reinvoked: isReinvoked(c)}
		for _, revision := range servedRevisions(c) {
			if previous, ok := found.byRevision[revision]; ok {
				found.byRevision[revision] = mergeInjectors(previous, injector)
			} else {
				found.byRevision[revision] = injector
			}
		}
	}
	return found
}

// mergeInjectors joins two configurations that serve one revision, such as that of the
// default revision and that of the tag default; a runs before b. What counts is
// whether Istio gets to see the pod after Isthmus, so the one is named that
// stands in the way.
func mergeInjectors(a, b inject.Injector) inject.Injector {
	if a.RunsFirst && !b.RunsFirst {
		return a
	}
	a.Reinvoked = a.Reinvoked && b.Reinvoked
	return a
}

// isReinvoked: a configuration without a policy has Never.
func isReinvoked(c *admissionv1.MutatingWebhookConfiguration) bool {
	return !slices.ContainsFunc(c.Webhooks, func(w admissionv1.MutatingWebhook) bool {
		return w.ReinvocationPolicy == nil || *w.ReinvocationPolicy != admissionv1.IfNeededReinvocationPolicy
	})
}

// injectorFor returns who serves the revision or tag.
func (i *injectors) injectorFor(requested string) (inject.Injector, error) {
	injector, ok := i.byRevision[normalizeRevision(requested)]
	if ok || i.unreadableReason != "" {
		return injector, nil
	}
	if len(i.byRevision) == 0 {
		return injector, fmt.Errorf("istio has no injector in this cluster: no MutatingWebhookConfiguration with labels %s that selects pods", injectorSelector)
	}
	subject := fmt.Sprintf("revision or tag %q", requested)
	if normalizeRevision(requested) == "" {
		subject = "pods that name no revision"
	}
	return injector, fmt.Errorf("no injector of Istio serves %s, only %s: name one of these with label %s", subject, strings.Join(i.describe(), ", "), revisionLabel)
}

// describe lists what is served, and by which configuration.
func (i *injectors) describe() []string {
	var lines []string
	for _, revision := range slices.Sorted(maps.Keys(i.byRevision)) {
		lines = append(lines, fmt.Sprintf("%s (%s)", revisionName(revision), i.byRevision[revision].Configuration))
	}
	return lines
}
