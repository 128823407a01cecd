package manifest

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Workload is one object with a pod in it.
type Workload struct {
	// Kind, Namespace and Name are the object's. The namespace is never
	// empty. The name is generateName and a "*" where there is no name.
	Kind, Namespace, Name string
	// Pod is the pod that the object makes, with the object's namespace.
	Pod *corev1.Pod
	// NamespaceLabels and NamespaceAnnotations are those of the Namespace
	// object of that name in the same input, nil when there is none.
	NamespaceLabels, NamespaceAnnotations map[string]string
	// SelectorKeys are the keys of labels that the workload's selector names: a pod
	// that loses one is refused.
	SelectorKeys []string
	// template is the pod as it stands in the document, with fields that no type
	// knows.
	template any
}

// String is how the report names the workload: "deployment/emissary/edge".
func (w Workload) String() string {
	return strings.ToLower(w.Kind) + "/" + w.Namespace + "/" + w.Name
}

// selectorKeys reads the keys of an object's selector, of which there are two forms.
func selectorKeys(value map[string]any) []string {
	spec, _ := value["spec"].(map[string]any)
	selector, _ := spec["selector"].(map[string]any)
	keys := slices.Collect(maps.Keys(stringEntries(selector)))
	keys = append(keys, slices.Collect(maps.Keys(stringEntries(selector["matchLabels"])))...)
	expressions, _ := selector["matchExpressions"].([]any)
	for _, e := range expressions {
		if m, ok := e.(map[string]any); ok {
			keys = append(keys, stringEntries(m)["key"])
		}
	}
	slices.Sort(keys)
	return keys
}

// typeMeta is an apiVersion and kind, as an object says them.
type typeMeta struct{ apiVersion, kind string }

// group is the API group, empty for the core group.
func (k typeMeta) group() string {
	if group, _, ok := strings.Cut(k.apiVersion, "/"); ok {
		return group
	}
	return ""
}

// podTemplatePath says where the pod is in a workload of this kind; ok is false for
// what is no workload. The version does not matter, and every group counts
// that the kind ever lived in. A custom resource of another group that is
// called Deployment is no workload.
func (k typeMeta) podTemplatePath() (keys []string, ok bool) {
	inGroup := func(groups ...string) bool {
		for _, g := range groups {
			if k.group() == g {
				return true
			}
		}
		return false
	}
	switch k.kind {
	case "Pod":
		return nil, inGroup("")
	case "ReplicationController":
		keys, ok = []string{"spec", "template"}, inGroup("")
	case "Deployment", "DaemonSet", "ReplicaSet":
		keys, ok = []string{"spec", "template"}, inGroup("apps", "extensions")
	case "StatefulSet":
		keys, ok = []string{"spec", "template"}, inGroup("apps")
	case "Job":
		keys, ok = []string{"spec", "template"}, inGroup("batch", "extensions")
	case "CronJob", "ScheduledJob":
		keys, ok = []string{"spec", "jobTemplate", "spec", "template"}, inGroup("batch")
	}
	return keys, ok
}

// isList is true for a List and for the typed lists of the kinds above, which
// is what `kubectl get --raw` prints.
func (k typeMeta) isList() bool {
	if k == (typeMeta{"v1", "List"}) {
		return true
	}
	item, found := strings.CutSuffix(k.kind, "List")
	if !found {
		return false
	}
	_, ok := typeMeta{k.apiVersion, item}.podTemplatePath()
	return ok
}

// itemType is the kind of a list's item: items of a typed list may leave theirs
// out.
func (k typeMeta) itemType(item typeMeta) typeMeta {
	if item.kind == "" && k.kind != "List" {
		item.kind = strings.TrimSuffix(k.kind, "List")
	}
	if item.apiVersion == "" && k.kind != "List" {
		item.apiVersion = k.apiVersion
	}
	return item
}
