package manifest

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Workload is an object that contains a pod or a pod template.
type Workload struct {
	// Kind, Namespace and Name identify the object. The namespace is never empty.
	// Without a name, Name is generateName followed by "*".
	Kind, Namespace, Name string
	// Pod is the pod that the object creates, with the object's namespace.
	Pod *corev1.Pod
	// NamespaceLabels and NamespaceAnnotations come from the Namespace object in
	// the same input; nil if the input does not hold it.
	NamespaceLabels, NamespaceAnnotations map[string]string
	// SelectorKeys are the label keys in the workload's selector. The API server
	// rejects a workload whose template lacks one of these labels.
	SelectorKeys []string
	// template is the pod as in the document, with unknown fields.
	template any
	// emptyFields returns the spellings of the pod's fields that are null or empty, by
	// their JSON pointers from the pod.
	emptyFields func() map[string]string
}

// String names the workload in the report: "deployment/emissary/edge".
func (w Workload) String() string {
	return strings.ToLower(w.Kind) + "/" + w.Namespace + "/" + w.Name
}

// selectorKeys returns the label keys of an object's selector. A ReplicationController's
// selector is a plain mapping; other kinds have a LabelSelector.
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
