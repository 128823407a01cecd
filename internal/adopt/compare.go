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
	// Field is its path, with the items of lists by name:
	// spec.containers[edge].env[FOO].
	Field string
	// Before and After are its values as JSON, empty where it is not there.
	Before, After string
	// Why is the reason in a few words. It is empty where no rule knows one: then
	// somebody has to look.
	Why string
}

// Compare says in which fields a pod that Isthmus made differs from the one that
// somebody wrote by hand, each with the reason. It looks at labels, annotations
// and the whole spec, at what they mean and not how they are written: a list is
// compared by its items' names, a container's list of variables as a set, the
// agent's arguments as flags, and Istio's annotations that hold YAML or JSON by
// their content. The order is that of the fields' paths.
func Compare(before, after *corev1.Pod) []Difference {
	c := &comparison{before: before, after: after, proxy: agentOf(after), status: readable(after)}
	c.renamed()
	a, b := shapeOf(c.before), shapeOf(after)
	c.moved(a, b)
	c.compare("", a, b)
	slices.SortStableFunc(c.found, func(a, b Difference) int { return bytes.Compare([]byte(a.Field), []byte(b.Field)) })
	for i := range c.found {
		c.found[i].Why = c.why(c.found[i])
	}
	return c.found
}

// comparison is two pods on their way through Compare.
type comparison struct {
	before, after *corev1.Pod
	// proxy is the sidecar of the pod after; nil where it has none.
	proxy *corev1.Container
	// status is what Isthmus says it did; empty where it says nothing.
	status inject.Status
	found  []Difference
}

// renamed gives the sidecar of the pod before the name that Istio's have.
func (c *comparison) renamed() {
	agent := writtenAgent(c.before, -1)
	if c.proxy == nil || agent == nil || agent.Name == patches.SidecarName {
		return
	}
	name := agent.Name
	c.before = c.before.DeepCopy()
	agent = writtenAgent(c.before, -1)
	agent.Name = patches.SidecarName
	c.found = append(c.found, Difference{Field: "spec.containers[" + patches.SidecarName + "].name", Before: text(name), After: text(agent.Name)})
}

// agentOf finds the sidecar of a pod, wherever it stands.
func agentOf(pod *corev1.Pod) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == patches.SidecarName })
		if i >= 0 {
			return &list[i]
		}
	}
	return writtenAgent(pod, -1)
}

func readable(pod *corev1.Pod) inject.Status {
	if st, err := inject.ReadStatus(pod); err == nil && st != nil {
		return *st
	}
	return inject.Status{}
}

// moved notes containers that became native sidecars, or the other way round, and
// puts them where the other pod has them, so that their fields are compared.
func (c *comparison) moved(before, after object) {
	was, is := before.spec(), after.spec()
	for _, lists := range [][2]string{{"containers", "initContainers"}, {"initContainers", "containers"}} {
		from, to := was.items(lists[0]), is.items(lists[1])
		for _, name := range slices.Sorted(maps.Keys(from)) {
			if to[name] == nil || is.items(lists[0])[name] != nil || was.items(lists[1])[name] != nil {
				continue
			}
			was.put(lists[1], name, from[name])
			delete(from, name)
			c.found = append(c.found, Difference{
				Field: "spec." + lists[1] + "[" + name + "]", Before: text("spec." + lists[0]), After: text("spec." + lists[1]),
			})
		}
	}
}

// compare walks two values. What one side lacks is one difference, but for named
// items, each of which is one.
func (c *comparison) compare(field string, before, after any) {
	if named, ok := after.(items); ok && before == nil {
		before = named.none()
	}
	if named, ok := before.(items); ok && after == nil {
		after = named.none()
	}
	switch a := before.(type) {
	case items:
		if b, ok := after.(items); ok {
			c.each(a, b, func(key string) string { return field + "[" + key + "]" })
			return
		}
	case object:
		if b, ok := after.(object); ok {
			c.each(a, b, func(key string) string {
				if field == "" {
					return key
				}
				return field + "." + key
			})
			return
		}
	}
	if was, is := text(before), text(after); was != is {
		c.found = append(c.found, Difference{Field: field, Before: was, After: is})
	}
}

func (c *comparison) each(a, b map[string]any, path func(string) string) {
	keys := maps.Clone(a)
	if keys == nil {
		keys = map[string]any{}
	}
	maps.Copy(keys, b)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		c.compare(path(key), a[key], b[key])
	}
}

// text is a value as JSON on one line, empty when there is none.
func text(v any) string {
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
