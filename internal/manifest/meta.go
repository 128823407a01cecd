package manifest

import (
	"errors"
	"fmt"
	"strings"
)

// typeMeta holds the apiVersion and kind of an object.
type typeMeta struct{ apiVersion, kind string }

// group returns the API group; empty for the core group.
func (t typeMeta) group() string {
	if group, _, ok := strings.Cut(t.apiVersion, "/"); ok {
		return group
	}
	return ""
}

// podTemplatePath returns the path of the pod or pod template in an object of this
// kind; ok is false if the kind is not a workload. It ignores the version and accepts
// every API group that the kind was ever served in. A custom resource of another group
// that is called Deployment is not a workload.
func (t typeMeta) podTemplatePath() (keys []string, ok bool) {
	inGroup := func(groups ...string) bool {
		for _, g := range groups {
			if t.group() == g {
				return true
			}
		}
		return false
	}
	switch t.kind {
	case "Pod":
		return nil, inGroup("")
	case "ReplicationController":
		keys, ok = []string{"spec", "template"}, inGroup("")
	case "Deployment", "DaemonSet", "ReplicaSet":
		keys, ok = []string{"spec", "template"}, inGroup("apps", "extensions")
	case "Rollout":
		keys, ok = []string{"spec", "template"}, inGroup("argoproj.io")
	case "DeploymentConfig":
		keys, ok = []string{"spec", "template"}, inGroup("apps.openshift.io", "")
	case "StatefulSet":
		keys, ok = []string{"spec", "template"}, inGroup("apps")
	case "Job":
		keys, ok = []string{"spec", "template"}, inGroup("batch", "extensions")
	case "CronJob", "ScheduledJob":
		keys, ok = []string{"spec", "jobTemplate", "spec", "template"}, inGroup("batch")
	}
	return keys, ok
}

// isList reports whether the kind is List or a typed list of workloads, such as
// `kubectl get --raw` prints.
func (t typeMeta) isList() bool {
	if t == (typeMeta{"v1", "List"}) {
		return true
	}
	item, found := strings.CutSuffix(t.kind, "List")
	if !found {
		return false
	}
	_, ok := typeMeta{t.apiVersion, item}.podTemplatePath()
	return ok
}

// itemType returns the type of a list's item. The items of a typed list can omit
// apiVersion and kind.
func (t typeMeta) itemType(item typeMeta) typeMeta {
	if item.kind == "" && t.kind != "List" {
		item.kind = strings.TrimSuffix(t.kind, "List")
	}
	if item.apiVersion == "" && t.kind != "List" {
		item.apiVersion = t.apiVersion
	}
	return item
}

// typeMetaOf reads the apiVersion and kind of an object.
func typeMetaOf(value map[string]any) typeMeta {
	apiVersion, _ := value["apiVersion"].(string)
	name, _ := value["kind"].(string)
	return typeMeta{apiVersion, name}
}

// objectMeta holds the metadata of an object that the package reads.
type objectMeta struct {
	namespace, name     string
	labels, annotations map[string]string
}

// objectMetaOf reads the metadata of an object. keys is the path from the document to
// the object, for errors.
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

// stringEntries returns the entries of a mapping whose values are strings.
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

// displayName names an object for messages: "Deployment emissary/edge".
func displayName(objectType typeMeta, namespace string, value map[string]any) string {
	m, _ := objectMetaOf(value, nil)
	if _, ok := objectType.podTemplatePath(); ok && m.namespace == "" {
		m.namespace = namespace
	}
	return strings.TrimSpace(objectType.kind + " " + joinName(m.namespace, m.name))
}

// namespacesIn returns the metadata of the Namespace objects in the input by name.
func namespacesIn(documents []*parsedDocument) map[string]objectMeta {
	found := map[string]objectMeta{}
	var visit func(map[string]any, typeMeta, int)
	visit = func(value map[string]any, list typeMeta, depth int) {
		objectType := list.itemType(typeMetaOf(value))
		if objectType == (typeMeta{"v1", "Namespace"}) {
			if m, err := objectMetaOf(value, nil); err == nil {
				found[m.name] = m
			}
		}
		items, _ := value["items"].([]any)
		if !objectType.isList() || depth >= maxListDepth {
			return
		}
		for _, item := range items {
			if inner, ok := item.(map[string]any); ok {
				visit(inner, objectType, depth+1)
			}
		}
	}
	for _, d := range documents {
		visit(d.value, typeMeta{}, 0)
	}
	return found
}

func joinName(namespace, name string) string {
	if namespace == "" || name == "" {
		return name
	}
	return namespace + "/" + name
}
