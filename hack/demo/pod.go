package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"sigs.k8s.io/yaml"
)

// pod is a pod as the API server returns it.
type pod map[string]any

// field returns the value at a path of keys, or nil.
func (p pod) field(keys ...string) any {
	var value any = map[string]any(p)
	for _, key := range keys {
		fields, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = fields[key]
	}
	return value
}

func (p pod) text(keys ...string) string {
	text, _ := p.field(keys...).(string)
	return text
}

func (p pod) name() string { return p.text("metadata", "name") }

// container returns a container or init container by its name, nil if there is none.
func (p pod) container(name string) pod {
	for _, list := range []string{"containers", "initContainers"} {
		containers, _ := p.field("spec", list).([]any)
		for _, container := range containers {
			if fields, ok := container.(map[string]any); ok && fields["name"] == name {
				return fields
			}
		}
	}
	return nil
}

func (p pod) image(container string) string { return p.container(container).text("image") }

// env returns the value of a container's variable, empty if there is none.
func (p pod) env(container, name string) string {
	variables, _ := p.container(container).field("env").([]any)
	for _, variable := range variables {
		if fields, ok := variable.(map[string]any); ok && fields["name"] == name {
			return pod(fields).text("value")
		}
	}
	return ""
}

// normalized returns the pod as YAML without the fields that differ between replicas:
// names, hashes, times, and what the API server and its controllers write.
func (p pod) normalized() (string, error) {
	content, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	// The volume of the account's token has a random name.
	if volumes, ok := p.field("spec", "volumes").([]any); ok {
		for _, volume := range volumes {
			fields, ok := volume.(map[string]any)
			if !ok {
				continue
			}
			if name, ok := fields["name"].(string); ok && strings.HasPrefix(name, "kube-api-access-") {
				content = []byte(strings.ReplaceAll(string(content), name, "kube-api-access"))
			}
		}
	}
	var normalized pod
	if err := json.Unmarshal(content, &normalized); err != nil {
		return "", err
	}
	delete(normalized, "status")
	if metadata, ok := normalized["metadata"].(map[string]any); ok {
		maps.DeleteFunc(metadata, func(key string, _ any) bool { return key != "labels" && key != "annotations" && key != "namespace" })
	}
	if labels, ok := normalized.field("metadata", "labels").(map[string]any); ok {
		delete(labels, "pod-template-hash")
	}
	if annotations, ok := normalized.field("metadata", "annotations").(map[string]any); ok {
		delete(annotations, "kubectl.kubernetes.io/restartedAt")
		if status, ok := annotations["isthmus.dev/status"].(string); ok {
			annotations["isthmus.dev/status"] = truncate(status, 80)
		}
	}
	out, err := yaml.Marshal(normalized)
	return string(out), err
}

// truncate shortens a text to length.
func truncate(text string, length int) string {
	if len(text) <= length {
		return text
	}
	return strings.ToValidUTF8(text[:length], "") + "..."
}

// podList is the output of kubectl get pods --output json.
type podList struct{ Items []pod }

func parsePods(content []byte) ([]pod, error) {
	var list podList
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, fmt.Errorf("list of pods: %w", err)
	}
	return list.Items, nil
}
