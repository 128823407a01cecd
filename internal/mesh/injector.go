package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// DefaultWebhookConfiguration is the name of Isthmus' own
// MutatingWebhookConfiguration in the chart.
const DefaultWebhookConfiguration = "isthmus-injector"

// injectorSelector selects the MutatingWebhookConfigurations of Istio's
// injector: one for each revision (mutatingwebhook.yaml of Istio's chart
// istio-discovery) and one for each tag (revision-tags-mwc.yaml there, which
// istioctl renders too). Other products have app=sidecar-injector as well.
const injectorSelector = "app=sidecar-injector," + revisionLabel

// injectors holds the injectors and tags of Istio at one moment, as its
// MutatingWebhookConfigurations define them.
type injectors struct {
	// unreadableReason says why the configurations cannot be read; empty when they
	// can.
	unreadableReason string
	// tags holds the tags by name.
	tags map[string]tag
	// byRevision holds the injector of each revision and tag. The key of the default
	// revision is empty.
	byRevision map[string]inject.Injector
}

// readInjectors reads the injectors and tags from the configurations. Tags count
// only if they belong to the Istio in the namespace. Injectors count wherever they
// run, because the API server calls all of them. ownConfiguration is the name of
// Isthmus' own configuration.
func readInjectors(namespace, ownConfiguration string, configurations []*admissionv1.MutatingWebhookConfiguration) injectors {
	// The API server calls webhooks in the order of the configurations' names.
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

// mergeInjectors merges two configurations that serve the same revision, such as
// those of the default revision and of the tag default. a runs before b. What
// matters is whether Istio sees the pod after Isthmus, so the result names the
// configuration that prevents it.
func mergeInjectors(a, b inject.Injector) inject.Injector {
	if a.RunsFirst && !b.RunsFirst {
		return a
	}
	a.Reinvoked = a.Reinvoked && b.Reinvoked
	return a
}

// isReinvoked reports whether the API server calls all webhooks of a configuration
// again when a later one changes the pod. The default policy is Never.
func isReinvoked(c *admissionv1.MutatingWebhookConfiguration) bool {
	return !slices.ContainsFunc(c.Webhooks, func(w admissionv1.MutatingWebhook) bool {
		return w.ReinvocationPolicy == nil || *w.ReinvocationPolicy != admissionv1.IfNeededReinvocationPolicy
	})
}

// injectorFor returns the injector that serves a revision or tag.
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

// describe lists the revisions and tags that are served, each with its
// configuration.
func (i *injectors) describe() []string {
	var lines []string
	for _, revision := range slices.Sorted(maps.Keys(i.byRevision)) {
		lines = append(lines, fmt.Sprintf("%s (%s)", revisionName(revision), i.byRevision[revision].Configuration))
	}
	return lines
}
