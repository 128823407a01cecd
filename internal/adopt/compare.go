package adopt

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// Difference is one field in which two pods differ.
type Difference struct {
	// Field is the path of the field, with list items by name, such as
	// spec.containers[edge].env[FOO].
	Field string
	// Before and After are the values of the field as JSON. A value is empty if the pod
	// does not have the field.
	Before, After string
	// Reason explains the difference in a few words. It is empty if no rule explains
	// it, so that the user must check it.
	Reason string
}

// Compare returns the fields in which a pod that Isthmus has injected differs from the pod
// that is integrated by hand, each with the reason. It compares the meaning of labels,
// annotations and the spec, not their form: lists by the names of their items, the
// variables of a container as a set, the agent's arguments as flags, and Istio's
// annotations in YAML or JSON by their content. The differences are sorted by field.
func Compare(before, after *corev1.Pod) []Difference {
	c := &comparison{before: before, after: after, sidecar: findSidecar(after), status: statusOf(after)}
	c.alignSidecarName()
	a, b := normalisePod(c.before), normalisePod(after)
	c.alignMovedContainers(a, b)
	c.compare("", a, b)
	slices.SortStableFunc(c.found, func(a, b Difference) int { return bytes.Compare([]byte(a.Field), []byte(b.Field)) })
	for i := range c.found {
		c.found[i].Reason = c.reasonFor(c.found[i])
	}
	return c.found
}

// comparison is the state of Compare.
type comparison struct {
	before, after *corev1.Pod
	// sidecar is that of the pod after, or nil.
	sidecar *corev1.Container
	// status is the status annotation of the pod after. It is zero if there is none.
	status inject.Status
	found  []Difference
}

// alignSidecarName gives the sidecar of the pod before the name of Istio's sidecars, so
// that its fields are compared.
func (c *comparison) alignSidecarName() {
	manual := findManualSidecar(c.before, -1)
	if c.sidecar == nil || manual == nil || manual.Name == patches.SidecarName {
		return
	}
	name := manual.Name
	c.before = c.before.DeepCopy()
	manual = findManualSidecar(c.before, -1)
	manual.Name = patches.SidecarName
	c.found = append(c.found, Difference{Field: "spec.containers[" + patches.SidecarName + "].name", Before: jsonText(name), After: jsonText(manual.Name)})
}

// findSidecar finds the sidecar among the containers and init containers of a pod. It
// returns nil if there is none.
func findSidecar(pod *corev1.Pod) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == patches.SidecarName })
		if i >= 0 {
			return &list[i]
		}
	}
	return findManualSidecar(pod, -1)
}

// statusOf returns the status of a pod, or a zero one if it cannot be read.
func statusOf(pod *corev1.Pod) inject.Status {
	if st, err := inject.ReadStatus(pod); err == nil && st != nil {
		return *st
	}
	return inject.Status{}
}

// alignMovedContainers records containers that moved between containers and
// initContainers, and moves them in the pod before, so that their fields are compared.
func (c *comparison) alignMovedContainers(before, after fieldMap) {
	specBefore, specAfter := before.spec(), after.spec()
	for _, lists := range [][2]string{{"containers", "initContainers"}, {"initContainers", "containers"}} {
		from, to := specBefore.items(lists[0]), specAfter.items(lists[1])
		for _, name := range slices.Sorted(maps.Keys(from)) {
			if to[name] == nil || specAfter.items(lists[0])[name] != nil || specBefore.items(lists[1])[name] != nil {
				continue
			}
			specBefore.put(lists[1], name, from[name])
			delete(from, name)
			c.found = append(c.found, Difference{
				Field: "spec." + lists[1] + "[" + name + "]", Before: jsonText("spec." + lists[0]), After: jsonText("spec." + lists[1]),
			})
		}
	}
}

// compare compares two values recursively. A value that one side lacks is one difference,
// unless it has named items: then each item is one difference.
func (c *comparison) compare(field string, before, after any) {
	if _, ok := after.(itemMap); ok && before == nil {
		before = itemMap{}
	}
	if _, ok := before.(itemMap); ok && after == nil {
		after = itemMap{}
	}
	switch a := before.(type) {
	case itemMap:
		if b, ok := after.(itemMap); ok {
			c.compareMaps(a, b, func(key string) string { return field + "[" + key + "]" })
			return
		}
	case fieldMap:
		if b, ok := after.(fieldMap); ok {
			c.compareMaps(a, b, func(key string) string {
				if field == "" {
					return key
				}
				return field + "." + key
			})
			return
		}
	}
	if a, b := jsonText(before), jsonText(after); a != b {
		c.found = append(c.found, Difference{Field: field, Before: a, After: b})
	}
}

func (c *comparison) compareMaps(a, b map[string]any, path func(string) string) {
	keys := maps.Clone(a)
	if keys == nil {
		keys = map[string]any{}
	}
	maps.Copy(keys, b)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		c.compare(path(key), a[key], b[key])
	}
}

// jsonText returns a value as JSON on one line, or "" for nil.
func jsonText(v any) string {
	if v == nil {
		return ""
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // it came from JSON
	}
	return string(bytes.TrimSpace(b.Bytes()))
}
