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

// placeholderImage is the edge's image if the values leave it to the chart.
const placeholderImage = "docker.io/emissaryingress/emissary"

// adoptValues adopts the pod that a chart would render from the values, as far as the
// values define it, and converts the patch of the pod into a patch of the values.
func adoptValues(engine *inject.Engine, v Values, o adopt.Options) Edit {
	if err := v.checkRawKeys(); err != nil {
		return Edit{Err: prefixErrors("cannot be adopted", err)}
	}
	namespace := policy.Namespace{Name: v.Namespace}
	var adoption adopt.Adoption
	for _, image := range []string{imageReference(v.section), placeholderImage} {
		template := v.podTemplate(image)
		pod, err := decodePod(template, v.Keys)
		if err == nil {
			pod.Namespace = v.Namespace
			adoption, err = adopt.Adopt(engine, inject.Request{Pod: pod, Template: true, Namespace: namespace}, o)
		}
		if err == nil {
			err = unknownFields(template, adoption.Patch)
		}
		if err != nil {
			return Edit{Err: prefixErrors("cannot be adopted", err)}
		}
		if adoption.Reason != policy.NoProfile {
			if image == placeholderImage {
				adoption.Profile = "" // the values do not name the image
			}
			break
		}
	}
	edit := adoptionEdit(adoption, namespace, o)
	edit.Patch = v.valuesPatch(edit.Patch)
	return edit
}

// podTemplate returns the pod template that a chart renders from the values. The edge
// is the first container.
func (v Values) podTemplate(image string) map[string]any {
	s := v.section
	edge := map[string]any{"name": "edge", "image": image}
	var env []any
	for _, e := range envVariables(s) {
		env = append(env, e.fields)
	}
	if env != nil {
		edge["env"] = env
	}
	spec := map[string]any{}
	for from, to := range map[string]map[string]any{valuesMounts: edge, valuesVolumes: spec, valuesInit: spec, "hostNetwork": spec, "dnsPolicy": spec} {
		if value, ok := s[from]; ok && value != nil {
			to[from] = value
		}
	}
	containers := []any{edge}
	if sidecars, ok := s[valuesSidecars].([]any); ok {
		containers = append(containers, sidecars...)
	}
	spec["containers"] = containers
	metadata := map[string]any{}
	for from, to := range map[string]string{podAnnotations: "annotations", podLabels: "labels"} {
		if pairs, ok := s[from].(map[string]any); ok {
			out := map[string]any{}
			for key, value := range pairs {
				out[key] = scalarText(value)
			}
			metadata[to] = out
		}
	}
	return map[string]any{"metadata": metadata, "spec": spec}
}

// valuesPaths maps paths of the pod to keys of the values.
var valuesPaths = []struct{ pod, values string }{
	{"/metadata/annotations", podAnnotations},
	{"/metadata/labels", podLabels},
	{"/spec/volumes", valuesVolumes},
	{"/spec/containers/0/volumeMounts", valuesMounts},
	{"/spec/initContainers", valuesInit},
}

// valuesPatch converts a patch of the pod into a patch of the values.
func (v Values) valuesPatch(patch []jsonpatch.Operation) []jsonpatch.Operation {
	var out []jsonpatch.Operation
	env := envVariables(v.section)
	removed := map[string][]string{} // keys of removed variables by parent
	for _, op := range patch {
		if rest, ok := strings.CutPrefix(op.Path, "/spec/containers/0/env"); ok {
			for i, e := range env {
				if rest == "" || rest == "/"+strconv.Itoa(i) {
					removed[e.parent] = append(removed[e.parent], e.key)
				}
			}
			continue
		}
		op.Path = v.valuesPath(op.Path)
		out = append(out, op)
	}
	for _, parent := range slices.Sorted(maps.Keys(removed)) {
		keys := removed[parent]
		count := 0
		for _, e := range env {
			if e.parent == parent {
				count++
			}
		}
		if len(keys) == count {
			out = append(out, jsonpatch.NewOperation("remove", "/"+parent, nil))
			continue
		}
		// The patch removes list items from the last to the first, so the indexes
		// stay valid.
		for _, key := range keys {
			out = append(out, jsonpatch.NewOperation("remove", "/"+parent+jsonPointer([]string{key}), nil))
		}
	}
	return out
}

// valuesPath converts a path of the pod into a path of the values.
func (v Values) valuesPath(pod string) string {
	for _, m := range valuesPaths {
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
	return pod // the patch fails with an error that names the path
}
