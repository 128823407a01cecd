package manifest

import (
	"errors"
	"fmt"
	"strings"
)

// meta is what matters of an object's own metadata.
type meta struct {
	namespace, name     string
	labels, annotations map[string]string
}

// metaOf reads an object's metadata. keys lead from the document to the object.
func metaOf(value map[string]any, keys []string) (meta, error) {
	var m meta
	var errs []error
	keys = append(keys[:len(keys):len(keys)], "metadata")
	if value["metadata"] == nil {
		return m, nil
	}
	own, ok := value["metadata"].(map[string]any)
	if !ok {
		return m, &fieldError{keys, "want a mapping, got " + typeName(value["metadata"])}
	}
	text := func(key string, into *string) {
		switch v := own[key].(type) {
		case nil:
		case string:
			*into = v
		default:
			errs = append(errs, &fieldError{append(keys[:len(keys):len(keys)], key), fmt.Sprintf("want a string, got %s %v: quote it", typeName(v), v)})
		}
	}
	generated := ""
	text("namespace", &m.namespace)
	text("name", &m.name)
	text("generateName", &generated)
	if m.name == "" && generated != "" {
		m.name = generated + "*"
	}
	m.labels, m.annotations = texts(own["labels"]), texts(own["annotations"])
	return m, errors.Join(errs...)
}

// texts keeps the strings of a mapping.
func texts(value any) map[string]string {
	out := map[string]string{}
	from, _ := value.(map[string]any)
	for key, v := range from {
		if s, ok := v.(string); ok {
			out[key] = s
		}
	}
	return out
}

func kindOf(value map[string]any) kind {
	apiVersion, _ := value["apiVersion"].(string)
	name, _ := value["kind"].(string)
	return kind{apiVersion, name}
}

// title names an object for a reader: "Deployment emissary/edge".
func title(k kind, namespace string, value map[string]any) string {
	m, _ := metaOf(value, nil)
	if _, ok := k.template(); ok && m.namespace == "" {
		m.namespace = namespace
	}
	return strings.TrimSpace(k.name + " " + joinName(m.namespace, m.name))
}

// namespacesIn collects the Namespace objects of the input by name.
func namespacesIn(objects []*object) map[string]meta {
	found := map[string]meta{}
	var visit func(map[string]any, kind, int)
	visit = func(value map[string]any, list kind, depth int) {
		k := list.item(kindOf(value))
		if k == (kind{"v1", "Namespace"}) {
			if m, err := metaOf(value, nil); err == nil {
				found[m.name] = m
			}
		}
		items, _ := value["items"].([]any)
		if !k.isList() || depth > maxDepth {
			return
		}
		for _, item := range items {
			if inner, ok := item.(map[string]any); ok {
				visit(inner, k, depth+1)
			}
		}
	}
	for _, o := range objects {
		visit(o.value, kind{}, 0)
	}
	return found
}
