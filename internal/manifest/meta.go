package manifest

import (
	"errors"
	"fmt"
	"strings"
)

// objectMeta is what matters of an object's own metadata.
type objectMeta struct {
	namespace, name     string
	labels, annotations map[string]string
}

// objectMetaOf reads an object's metadata. keys lead from the document to the object.
func objectMetaOf(value map[string]any, keys []string) (objectMeta, error) {
	var m objectMeta
	var errs []error
	keys = append(keys[:len(keys):len(keys)], "metadata")
	if value["metadata"] == nil {
		return m, nil
	}
	metadata, ok := value["metadata"].(map[string]any)
	if !ok {
		return m, &fieldError{keys, "want a mapping, got " + describeType(value["metadata"])}
	}
	text := func(key string, into *string) {
		switch v := metadata[key].(type) {
		case nil:
		case string:
			*into = v
		default:
			errs = append(errs, &fieldError{append(keys[:len(keys):len(keys)], key), fmt.Sprintf("want a string, got %s %v: quote it", describeType(v), v)})
		}
	}
	generated := ""
	text("namespace", &m.namespace)
	text("name", &m.name)
	text("generateName", &generated)
	if m.name == "" && generated != "" {
		m.name = generated + "*"
	}
	m.labels, m.annotations = stringEntries(metadata["labels"]), stringEntries(metadata["annotations"])
	return m, errors.Join(errs...)
}

// stringEntries keeps the strings of a mapping.
func stringEntries(value any) map[string]string {
	out := map[string]string{}
	from, _ := value.(map[string]any)
	for key, v := range from {
		if s, ok := v.(string); ok {
			out[key] = s
		}
	}
	return out
}

func typeMetaOf(value map[string]any) typeMeta {
	apiVersion, _ := value["apiVersion"].(string)
	name, _ := value["kind"].(string)
	return typeMeta{apiVersion, name}
}

// displayName names an object for a reader: "Deployment emissary/edge".
func displayName(meta typeMeta, namespace string, value map[string]any) string {
	m, _ := objectMetaOf(value, nil)
	if _, ok := meta.podTemplatePath(); ok && m.namespace == "" {
		m.namespace = namespace
	}
	return strings.TrimSpace(meta.kind + " " + joinName(m.namespace, m.name))
}

// namespacesIn collects the Namespace objects of the input by name.
func namespacesIn(documents []*parsedDocument) map[string]objectMeta {
	found := map[string]objectMeta{}
	var visit func(map[string]any, typeMeta, int)
	visit = func(value map[string]any, list typeMeta, depth int) {
		meta := list.itemType(typeMetaOf(value))
		if meta == (typeMeta{"v1", "Namespace"}) {
			if m, err := objectMetaOf(value, nil); err == nil {
				found[m.name] = m
			}
		}
		items, _ := value["items"].([]any)
		if !meta.isList() || depth > maxDepth {
			return
		}
		for _, item := range items {
			if inner, ok := item.(map[string]any); ok {
				visit(inner, meta, depth+1)
			}
		}
	}
	for _, d := range documents {
		visit(d.value, typeMeta{}, 0)
	}
	return found
}
