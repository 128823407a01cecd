package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Namespace is the part of a namespace that decisions depend on.
type Namespace struct {
	// Name is the name of the namespace.
	Name string
	// Labels and Annotations are all that decisions may depend on; others may be left
	// out.
	Labels, Annotations map[string]string
}

// NamespaceProblems lists every invalid value under the keys of Isthmus that a
// namespace carries: one sentence each, in a fixed order.
func NamespaceProblems(ns Namespace, d Defaults, names Names) []string {
	var problems []string
	if v, ok := ns.Labels[InjectionLabel]; ok && v != InjectionEnabled && v != InjectionDisabled {
		problems = append(problems, fmt.Sprintf("namespace %s: label %s: %q is not allowed; want %s or %s", ns.Name, InjectionLabel, v, InjectionEnabled, InjectionDisabled))
	}
	if _, problem := WantsRestart(nil, ns); problem != "" {
		problems = append(problems, problem)
	}
	firstProblem := func(annotations map[string]string) string {
		if _, problem := Resolve(nil, nil, Namespace{Name: ns.Name, Labels: ns.Labels, Annotations: annotations}, d, names); problem != nil {
			return problem.Message
		}
		return ""
	}
	// A namespace may carry thousands of other annotations.
	annotations := map[string]string{}
	for key, value := range ns.Annotations {
		if keyLocations[key]&namespaceAnnotation != 0 {
			annotations[key] = value
		}
	}
	// Resolve reports one problem at a time: find the annotation behind it, and
	// resolve again without that annotation.
	for {
		message := firstProblem(annotations)
		if message == "" {
			return problems
		}
		problems = append(problems, message)
		keys := NamespaceKeys(nil, annotations)
		culprit := slices.IndexFunc(keys, func(key string) bool { return firstProblem(withoutKey(annotations, key)) != message })
		if culprit < 0 {
			return problems // a default is invalid, not an annotation
		}
		annotations = withoutKey(annotations, keys[culprit])
	}
}

// NamespaceKeys lists the keys of Isthmus among a namespace's labels and
// annotations, sorted and without duplicates.
func NamespaceKeys(labels, annotations map[string]string) []string {
	var keys []string
	for _, m := range []map[string]string{labels, annotations} {
		for key := range m {
			if strings.HasPrefix(key, Domain) {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func withoutKey(m map[string]string, key string) map[string]string {
	m = maps.Clone(m)
	delete(m, key)
	return m
}
