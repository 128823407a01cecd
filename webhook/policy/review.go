package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// NamespaceProblems says everything that is wrong with the values that a
// namespace carries under keys of ours: a sentence each, in a fixed order. What a
// value may be is for Resolve to say; since it names one problem at a time, it is
// asked again without the value that it named.
func NamespaceProblems(ns Namespace, d Defaults, secretNames []string) []string {
	var out []string
	if v, ok := ns.Labels[InjectionLabel]; ok && v != InjectionEnabled && v != InjectionDisabled {
		out = append(out, fmt.Sprintf("label of namespace %s %s: %q is not allowed; want %s or %s", ns.Name, InjectionLabel, v, InjectionEnabled, InjectionDisabled))
	}
	if _, problem := Restart(nil, ns); problem != "" {
		out = append(out, problem)
	}
	wrong := func(annotations map[string]string) string {
		if _, problem := Resolve(nil, nil, Namespace{Name: ns.Name, Labels: ns.Labels, Annotations: annotations}, d, secretNames); problem != nil {
			return problem.Message
		}
		return ""
	}
	// Known keys alone: a namespace may carry thousands of others.
	rest := map[string]string{}
	for key, value := range ns.Annotations {
		if places[key]&namespaceAnnotation != 0 {
			rest[key] = value
		}
	}
	for {
		message := wrong(rest)
		if message == "" {
			return out
		}
		out = append(out, message)
		keys := NamespaceKeys(nil, rest)
		culprit := slices.IndexFunc(keys, func(key string) bool { return wrong(without(rest, key)) != message })
		if culprit < 0 {
			return out // the defaults are to blame
		}
		rest = without(rest, keys[culprit])
	}
}

// NamespaceKeys lists the keys of ours among a namespace's labels and
// annotations, sorted, each once.
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

func without(m map[string]string, key string) map[string]string {
	m = maps.Clone(m)
	delete(m, key)
	return m
}
