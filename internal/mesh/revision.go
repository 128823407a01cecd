package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// How Istio's chart names and labels its objects. For the default revision the
// name has no suffix and the label says "default".
const (
	injectorName    = "istio-sidecar-injector"
	meshConfigName  = "istio"
	istiodName      = "istiod"
	revisionLabel   = "istio.io/rev"
	defaultRevision = "default"
)

// objectName is the name of an object that each revision has one of.
func objectName(base, revision string) string {
	if revision == "" {
		return base
	}
	return base + "-" + revision
}

// normalizeRevision returns the revision as this package writes it: the default one is
// empty.
func normalizeRevision(revision string) string {
	if revision == defaultRevision {
		return ""
	}
	return revision
}

// revisionName returns the revision as Istio's labels have it.
func revisionName(revision string) string {
	if revision == "" {
		return defaultRevision
	}
	return revision
}

// revisionOf says which revision's object this is. By its name alone only the
// default revision's is recognised, since "istio-ca-root-cert" is no mesh
// configuration of a revision "ca-root-cert"; the others must carry the label.
func revisionOf(base, name, label string) (revision string, ok bool) {
	if name == base {
		return "", true
	}
	return label, label != "" && name == objectName(base, label)
}

// controlPlanes sorts the objects by revision. A revision is there when one of
// its ConfigMaps is.
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

// resolvedRevision is a revision, and the name and source of the tag that pointed to it;
// both are empty where none did.
type resolvedRevision struct{ revision, tag, source string }

// resolve says which of the known revisions is meant. Asked is the revision or
// tag that the pod or the user names, empty for none.
//
// The tag default counts for more than the default revision, as it does for
// istiod (pkg/revisions/tag_watcher.go of Istio) and as istioctl makes it: it
// takes the default revision's injector out of service.
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

// resolveTag returns what a tag points to.
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

// revisionNames lists the revisions.
func (s *meshState) revisionNames() string {
	var names []string
	for _, revision := range slices.Sorted(maps.Keys(s.revisions)) {
		names = append(names, revisionName(revision))
	}
	return strings.Join(names, ", ")
}

// tagsSuffix lists the tags behind the revisions.
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
