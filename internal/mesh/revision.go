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

// named is the name of an object that each revision has one of.
func named(base, revision string) string {
	if revision == "" {
		return base
	}
	return base + "-" + revision
}

// plain returns the revision as this package writes it: the default one is
// empty.
func plain(revision string) string {
	if revision == defaultRevision {
		return ""
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
	return label, label != "" && name == named(base, label)
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

// choose says which of the known revisions is meant. Asked is what the pod or
// the user names, configured what the settings name for those who name none.
func choose[T any](namespace, asked, configured string, known map[string]T) (string, error) {
	want := plain(asked)
	if want == "" && asked == "" {
		want = plain(configured)
	}
	if _, ok := known[want]; ok {
		return want, nil
	}
	names := make([]string, 0, len(known))
	for _, rev := range slices.Sorted(maps.Keys(known)) {
		if rev == "" {
			rev = defaultRevision
		}
		names = append(names, rev)
	}
	list := strings.Join(names, ", ")
	if want != "" {
		return "", fmt.Errorf("istio revision %q is not installed in namespace %s, only %s", want, namespace, list)
	}
	if len(known) > 1 {
		return "", fmt.Errorf("istio in namespace %s has the revisions %s and no default one: name one of them", namespace, list)
	}
	for only := range known {
		return only, nil
	}
	return "", fmt.Errorf("istio has no revision in namespace %s", namespace)
}
