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
	// Selected are the keys of labels that the workload's selector names: a pod
	// that loses one is refused.
	Selected []string
	// template is the pod as it stands in the document, with fields that no type
	// knows.
	template any
}

// String is how the report names the workload: "deployment/emissary/edge".
func (w Workload) String() string {
	return strings.ToLower(w.Kind) + "/" + w.Namespace + "/" + w.Name
}

// selected reads the keys of an object's selector, of which there are two forms.
func selected(value map[string]any) []string {
	spec, _ := value["spec"].(map[string]any)
	selector, _ := spec["selector"].(map[string]any)
	keys := slices.Collect(maps.Keys(texts(selector)))
	keys = append(keys, slices.Collect(maps.Keys(texts(selector["matchLabels"])))...)
	expressions, _ := selector["matchExpressions"].([]any)
	for _, e := range expressions {
		if m, ok := e.(map[string]any); ok {
			keys = append(keys, texts(m)["key"])
		}
	}
	slices.Sort(keys)
	return keys
}

// kind is an apiVersion and kind, as an object says them.
type kind struct{ apiVersion, name string }

// group is the API group, empty for the core group.
func (k kind) group() string {
	if group, _, ok := strings.Cut(k.apiVersion, "/"); ok {
		return group
	}
	return ""
}

// template says where the pod is in a workload of this kind; ok is false for
// what is no workload. The version does not matter, and every group counts
// that the kind ever lived in. A custom resource of another group that is
// called Deployment is no workload.
func (k kind) template() (keys []string, ok bool) {
	in := func(groups ...string) bool {
		for _, g := range groups {
			if k.group() == g {
				return true
			}
		}
		return false
	}
	switch k.name {
	case "Pod":
		return nil, in("")
	case "ReplicationController":
		keys, ok = []string{"spec", "template"}, in("")
	case "Deployment", "DaemonSet", "ReplicaSet":
		keys, ok = []string{"spec", "template"}, in("apps", "extensions")
	case "StatefulSet":
		keys, ok = []string{"spec", "template"}, in("apps")
	case "Job":
		keys, ok = []string{"spec", "template"}, in("batch", "extensions")
	case "CronJob", "ScheduledJob":
		keys, ok = []string{"spec", "jobTemplate", "spec", "template"}, in("batch")
	}
	return keys, ok
}

// isList is true for a List and for the typed lists of the kinds above, which
// is what `kubectl get --raw` prints.
func (k kind) isList() bool {
	if k == (kind{"v1", "List"}) {
		return true
	}
	item, found := strings.CutSuffix(k.name, "List")
	if !found {
		return false
	}
	_, ok := kind{k.apiVersion, item}.template()
	return ok
}

// item is the kind of a list's item: items of a typed list may leave theirs
// out.
func (k kind) item(own kind) kind {
	if own.name == "" && k.name != "List" {
		own.name = strings.TrimSuffix(k.name, "List")
	}
	if own.apiVersion == "" && k.name != "List" {
		own.apiVersion = k.apiVersion
	}
	return own
}
