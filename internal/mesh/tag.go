package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
)

// tagLabel is the label with the name of the tag that a
// MutatingWebhookConfiguration of Istio defines. Its revisionLabel holds the
// revision that the tag points to.
const tagLabel = "istio.io/tag"

// tag is an alias of a revision.
type tag struct {
	// revision is the revision that the tag points to; empty for the default one.
	revision string
	// source names the object that defines the tag.
	source string
	// err is set if two objects define the tag differently.
	err error
}

// readTags returns the tags of the Istio in a namespace by name. The configurations
// must be sorted by name.
func readTags(namespace string, configurations []*admissionv1.MutatingWebhookConfiguration) map[string]tag {
	tags := make(map[string]tag)
	for _, c := range configurations {
		name := c.Labels[tagLabel]
		if name == "" || !belongsTo(namespace, c) {
			continue
		}
		found := tag{revision: normalizeRevision(c.Labels[revisionLabel]), source: "MutatingWebhookConfiguration " + c.Name}
		if previous, ok := tags[name]; ok && previous.revision != found.revision {
			found.err = fmt.Errorf("istio's tag %q points to revision %s in %s and to %s in %s: remove one of them",
				name, revisionName(previous.revision), previous.source, revisionName(found.revision), found.source)
		}
		tags[name] = found
	}
	return tags
}

// belongsTo reports whether a configuration belongs to the Istio in a namespace. A
// configuration with a URL counts for every namespace.
func belongsTo(namespace string, c *admissionv1.MutatingWebhookConfiguration) bool {
	return slices.ContainsFunc(c.Webhooks, func(w admissionv1.MutatingWebhook) bool {
		return w.ClientConfig.Service == nil || w.ClientConfig.Service.Namespace == namespace
	})
}

// describeTags lists the tags with their revisions, for a message.
func describeTags(tags map[string]tag) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		all = append(all, fmt.Sprintf("%s (revision %s)", name, revisionName(tags[name].revision)))
	}
	return strings.Join(all, ", ")
}
