package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
)

// tagLabel names the tag that a MutatingWebhookConfiguration of Istio makes;
// revisionLabel on it is the revision that the tag points to.
const tagLabel = "istio.io/tag"

// tag is a name that points to a revision.
type tag struct {
	// revision is empty for the default one.
	revision string
	// source names the object that says so.
	source string
	// err is not nil where two objects disagree.
	err error
}

// readTags returns the tags of the Istio in a namespace. Configurations come in
// the order of their names.
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

// belongsTo says whether a configuration belongs to the Istio in a namespace. One
// that is called by URL may be of any.
func belongsTo(namespace string, c *admissionv1.MutatingWebhookConfiguration) bool {
	return slices.ContainsFunc(c.Webhooks, func(w admissionv1.MutatingWebhook) bool {
		return w.ClientConfig.Service == nil || w.ClientConfig.Service.Namespace == namespace
	})
}

// describeTags lists the tags with their revisions.
func describeTags(tags map[string]tag) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		all = append(all, fmt.Sprintf("%s (revision %s)", name, revisionName(tags[name].revision)))
	}
	return strings.Join(all, ", ")
}
