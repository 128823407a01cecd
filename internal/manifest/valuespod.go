package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gomodules.xyz/jsonpatch/v2"

	"github.com/isthmus-mesh/isthmus/internal/adopt"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// standIn is the edge's image where values leave it to the chart.
const standIn = "docker.io/emissaryingress/emissary"

// adoptValues adopts the pod that a chart would make of values, as far as the
// values say, and takes the outcome back to them.
func adoptValues(engine *inject.Engine, v Values, o adopt.Options) Edit {
	if err := v.inText(); err != nil {
		return Edit{Err: prefixed("cannot be adopted", err)}
	}
	namespace := policy.Namespace{Name: v.Namespace}
	var adoption adopt.Adoption
	for _, image := range []string{imageOf(v.section), standIn} {
		template := v.template(image)
		pod, err := decodePod(template, v.Keys)
		if err == nil {
			pod.Namespace = v.Namespace
			adoption, err = adopt.Adopt(engine, inject.Request{Pod: pod, Template: true, Namespace: namespace}, o)
		}
		if err == nil {
			err = foreignFields(template, adoption.Patch)
		}
		if err != nil {
			return Edit{Err: prefixed("cannot be adopted", err)}
		}
		if adoption.Reason != policy.NoProfile {
			if image == standIn {
				adoption.Profile = "" // nobody said
			}
			break
		}
	}
	edit := editOf(adoption, namespace, o)
	edit.Patch = v.translate(edit.Patch)
	return edit
}

// template is the pod that a chart makes of the values. The edge is its first
// container.
func (v Values) template(image string) map[string]any {
	s := v.section
	edge := map[string]any{"name": "edge", "image": image}
	var env []any
	for _, e := range envOf(s) {
		env = append(env, e.item)
	}
	if env != nil {
		edge["env"] = env
	}
	spec := map[string]any{}
	for from, to := range map[string]map[string]any{valuesMounts: edge, valuesVolumes: spec, valuesInit: spec, "hostNetwork": spec, "dnsPolicy": spec} {
		if value, there := s[from]; there && value != nil {
			to[from] = value
		}
	}
	containers := []any{edge}
	if more, ok := s[valuesSidecars].([]any); ok {
		containers = append(containers, more...)
	}
	spec["containers"] = containers
	metadata := map[string]any{}
	for from, to := range map[string]string{podAnnotations: "annotations", podLabels: "labels"} {
		if pairs, ok := s[from].(map[string]any); ok {
			out := map[string]any{}
			for key, value := range pairs {
				out[key] = word(value)
			}
			metadata[to] = out
		}
	}
	return map[string]any{"metadata": metadata, "spec": spec}
}

// moved are the paths of the pod and where values have them.
var moved = []struct{ pod, values string }{
	{"/metadata/annotations", podAnnotations},
	{"/metadata/labels", podLabels},
	{"/spec/volumes", valuesVolumes},
	{"/spec/containers/0/volumeMounts", valuesMounts},
	{"/spec/initContainers", valuesInit},
}

// translate makes a patch of the pod one of the values.
func (v Values) translate(patch []jsonpatch.Operation) []jsonpatch.Operation {
	var out []jsonpatch.Operation
	env := envOf(v.section)
	gone := map[string][]string{} // places of variables: keys
	for _, op := range patch {
		if rest, ok := strings.CutPrefix(op.Path, "/spec/containers/0/env"); ok {
			for i, e := range env {
				if rest == "" || rest == "/"+strconv.Itoa(i) {
					gone[e.place] = append(gone[e.place], e.key)
				}
			}
			continue
		}
		op.Path = v.path(op.Path)
		out = append(out, op)
	}
	for _, place := range slices.Sorted(maps.Keys(gone)) {
		keys := gone[place]
		count := 0
		for _, e := range env {
			if e.place == place {
				count++
			}
		}
		if len(keys) == count {
			out = append(out, jsonpatch.NewOperation("remove", "/"+place, nil))
			continue
		}
		// From the end on: list indexes come in the order of their removal.
		for _, key := range keys {
			out = append(out, jsonpatch.NewOperation("remove", "/"+place+pathOf([]string{key}), nil))
		}
	}
	return out
}

// path is where values have what stands at a path of the pod.
func (v Values) path(pod string) string {
	for _, m := range moved {
		if rest, ok := strings.CutPrefix(pod, m.pod); ok && (rest == "" || rest[0] == '/') {
			return "/" + m.values + rest
		}
	}
	if rest, ok := strings.CutPrefix(pod, "/spec/containers/"); ok {
		if i, err := strconv.Atoi(rest); err == nil && i > 0 {
			if more, _ := v.section[valuesSidecars].([]any); len(more) == 1 {
				return "/" + valuesSidecars
			}
			return fmt.Sprintf("/%s/%d", valuesSidecars, i-1)
		}
	}
	return pod // applying it fails, and says where
}
