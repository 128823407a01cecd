package manifest

import (
	"fmt"

	"gomodules.xyz/jsonpatch/v2"
)

// fakeEditor replaces the engine in tests. It edits pods that have a container called
// edge with every kind of operation that the engine uses, and with values that are
// hard to write in YAML.
func fakeEditor(w Workload) Edit {
	if w.NamespaceLabels["isthmus.dev/injection"] == "disabled" {
		return Edit{Summary: "unchanged (excluded-namespace)"}
	}
	edge := -1
	for i, c := range w.Pod.Spec.Containers {
		if c.Name == "edge" {
			edge = i
		}
	}
	if edge < 0 {
		return Edit{Summary: "unchanged (no-profile)"}
	}
	var patch []jsonpatch.Operation
	add := func(op, path string, value any) {
		patch = append(patch, jsonpatch.NewOperation(op, path, value))
	}
	appendTo := func(path string, empty bool, value any) {
		if empty {
			add("add", path, []any{value})
		} else {
			add("add", path+"/-", value)
		}
	}
	if _, ok := w.Pod.Annotations["sidecar.istio.io/inject"]; ok {
		add("replace", "/metadata/annotations/sidecar.istio.io~1inject", "true")
	}
	if w.Pod.Annotations == nil {
		add("add", "/metadata/annotations", map[string]string{})
	}
	add("add", "/metadata/annotations/example.com~1status", `{"schema":1,"it's":"here"}`)
	appendTo("/spec/volumes", w.Pod.Spec.Volumes == nil, map[string]any{"name": "certs", "emptyDir": map[string]any{"sizeLimit": "1Mi"}})
	appendTo(fmt.Sprintf("/spec/containers/%d/env", edge), w.Pod.Spec.Containers[edge].Env == nil, struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}{"DIR", "/etc/certs"})
	values := []string{"yes", "text\nof two lines\n"}
	if w.Kind == "Pod" {
		values = oddValues
	}
	var env []map[string]string
	for i, value := range values {
		env = append(env, map[string]string{"name": fmt.Sprintf("V%d", i), "value": value})
	}
	appendTo("/spec/initContainers", w.Pod.Spec.InitContainers == nil, map[string]any{
		"name": "sidecar", "image": "proxy:1", "env": env, "securityContext": map[string]any{"runAsUser": 1337, "runAsNonRoot": true},
	})
	return Edit{Patch: patch, Summary: "injected"}
}

// oddValues are strings that some version of YAML reads as another value if they are
// not quoted.
var oddValues = []string{
	"yes", "on", "1e3", "0777", "1_000", "12:30:45", "~", "", "text\nof two lines\n", " spaced ", "a: b", "# no comment",
	`{"a":1}`, "0b1", "2001-01-01", "-flag", "1.0", "=", "a::b", "a: ", "tab\there", "\u00e9\u2028", "---", "<<", "- a", "*a", "&a", "!a", "%a", "@a", "?", "a\r\nb", "\n", " \n a", "0o17", "1Mi", "5m", "1k",
}
