package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Names and labels of the objects in Istio's chart. For the default revision the
// name has no suffix and the label is "default".
const (
	injectorName    = "istio-sidecar-injector"
	meshConfigName  = "istio"
	istiodName      = "istiod"
	revisionLabel   = "istio.io/rev"
	defaultRevision = "default"
)

// objectName returns the name of a revision's object, such as istiod-canary.
func objectName(base, revision string) string {
	if revision == "" {
		return base
	}
	return base + "-" + revision
}

// normalizeRevision returns the revision as this package stores it, where the
// default revision is empty.
func normalizeRevision(revision string) string {
	if revision == defaultRevision {
		return ""
	}
	return revision
}

// revisionName returns the revision as Istio's labels write it, where the default
// revision is "default".
func revisionName(revision string) string {
	if revision == "" {
		return defaultRevision
	}
	return revision
}

// revisionOf returns the revision that an object belongs to. The name alone is
// enough for the default revision. Other revisions need the label too, because
// "istio-ca-root-cert" is not the mesh configuration of a revision "ca-root-cert".
func revisionOf(base, name, label string) (revision string, ok bool) {
	if name == base {
		return "", true
	}
	return label, label != "" && name == objectName(base, label)
}

// controlPlanes groups the objects by revision. A revision is installed when one of
// its ConfigMaps exists.
func controlPlanes(namespace string, configMaps []*corev1.ConfigMap, deployments []*appsv1.Deployment) map[string]ControlPlane {
	planes := make(map[string]ControlPlane)
	for _, cm := range configMaps {
		label := cm.Labels[revisionLabel]
		if rev, ok := revisionOf(injectorName, cm.Name, label); ok {
			p := planes[rev]
			p.Injector = cm
			planes[rev] = p
		} else if rev, ok := revisionOf(meshConfigName, cm.Name, label); ok {
			p := planes[rev]
			p.MeshConfig = cm
			planes[rev] = p
		}
	}
	for _, d := range deployments {
		rev, ok := revisionOf(istiodName, d.Name, d.Labels[revisionLabel])
		if p, known := planes[rev]; ok && known {
			p.Istiod = d
			planes[rev] = p
		}
	}
	for rev, p := range planes {
		p.Namespace, p.Revision = namespace, rev
		planes[rev] = p
	}
	return planes
}

// resolvedRevision is a revision with the name and source of the tag that points to
// it. Both are empty if no tag was used.
type resolvedRevision struct{ revision, tag, source string }

// resolve returns the installed revision that a request means. The request is the
// revision or tag that the pod or the user names, or empty.
//
// The tag default takes precedence over the default revision, as in istiod
// (pkg/revisions/tag_watcher.go of Istio). istioctl takes the default revision's
// injector out of service when it sets that tag.
func (s *meshState) resolve(requested string) (resolvedRevision, error) {
	revision := normalizeRevision(requested)
	if requested == "" {
		revision = normalizeRevision(s.explicit.Revision)
	}
	_, installed := s.revisions[revision]
	if t, ok := s.injectors.tags[revisionName(revision)]; ok && (revision == "" || !installed) {
		return s.resolveTag(revisionName(revision), t)
	}
	if installed {
		return resolvedRevision{revision: revision}, nil
	}
	if revision != "" {
		return resolvedRevision{}, fmt.Errorf("istio revision %q is not installed in namespace %s, only %s%s", revision, s.namespace, s.revisionNames(), s.tagsSuffix())
	}
	if len(s.revisions) > 1 {
		return resolvedRevision{}, fmt.Errorf("istio in namespace %s has the revisions %s and no default one%s: name one of them with label %s, or set the tag default",
			s.namespace, s.revisionNames(), s.tagsSuffix(), revisionLabel)
	}
	for name := range s.revisions {
		return resolvedRevision{revision: name}, nil
	}
	return resolvedRevision{}, fmt.Errorf("istio has no revision in namespace %s", s.namespace)
}

// resolveTag returns the revision that a tag points to.
func (s *meshState) resolveTag(name string, t tag) (resolvedRevision, error) {
	if t.err != nil {
		return resolvedRevision{}, t.err
	}
	if _, ok := s.revisions[t.revision]; !ok {
		return resolvedRevision{}, fmt.Errorf("istio's tag %q (%s) points to revision %s, which is not installed in namespace %s, only %s: point it to one of these",
			name, t.source, revisionName(t.revision), s.namespace, s.revisionNames())
	}
	return resolvedRevision{t.revision, name, t.source}, nil
}

// revisionNames lists the installed revisions for a message.
func (s *meshState) revisionNames() string {
	var names []string
	for _, revision := range slices.Sorted(maps.Keys(s.revisions)) {
		names = append(names, revisionName(revision))
	}
	return strings.Join(names, ", ")
}

// tagsSuffix lists the tags for a message that lists the revisions before them.
func (s *meshState) tagsSuffix() string {
	switch {
	case s.injectors.unreadableReason != "":
		return " (its tags are not known: " + s.injectors.unreadableReason + ")"
	case len(s.injectors.tags) == 0:
		return ""
	default:
		return "; its tags are " + describeTags(s.injectors.tags)
	}
}
