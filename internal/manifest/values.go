package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"gomodules.xyz/jsonpatch/v2"

	"github.com/isthmus-mesh/isthmus/patches"
)

// Values is a section of Helm values from which a chart makes an edge's pod.
type Values struct {
	// Namespace is that of the release.
	Namespace string
	// Keys lead from the document to the section: none, or the name of a subchart.
	Keys []string
	// section is the section itself.
	section map[string]any
}

// String is how the report names the section: "values", "values/emissary-ingress".
func (v Values) String() string { return strings.Join(append([]string{"values"}, v.Keys...), "/") }

// The keys of the Emissary, Edge Stack and Ambassador charts that make the pod.
const (
	podAnnotations = "podAnnotations"
	podLabels      = "podLabels"
	valuesVolumes  = "volumes"
	valuesMounts   = "volumeMounts"
	valuesEnv      = "env"
	valuesEnvRaw   = "envRaw"
	valuesSidecars = "sidecarContainers"
	valuesInit     = "initContainers"
)

// rawKeys hold text that the charts render as a template, and so no structure.
var rawKeys = []string{valuesEnvRaw, "volumesRaw", "volumeMountsRaw"}

// handText is what such text has in it when it is part of an integration by hand.
var handText = []string{"AMBASSADOR_ISTIO_SECRET_DIR", "OUTPUT_CERTS", patches.CertsVolume}

// inText says which part of an integration by hand stands in text.
func (v Values) inText() error {
	var errs []error
	for _, key := range rawKeys {
		text, _ := v.section[key].(string)
		for _, part := range handText {
			if strings.Contains(text, part) {
				structured := strings.TrimSuffix(key, "Raw")
				errs = append(errs, fmt.Errorf("%s: %s is in text that the chart renders, where nothing can be taken out; move it to %s, which every one of the charts has", key, part, structured))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// charts are the names under which a chart has another's values.
var charts = []string{"emissary-ingress", "emissary", "ambassador", "edge-stack", "aes"}

// valuesDocument decides on a document that may hold Helm values: a mapping that
// is no Kubernetes object.
func (t *transformer) valuesDocument(o *object) ([]jsonpatch.Operation, error) {
	if !mayBeValues(o.root) {
		return nil, nil
	}
	// What cannot be read is none of a chart's values.
	raw, err := toJSON(o.chunk)
	if err != nil {
		return nil, nil
	}
	var tree map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if dec.Decode(&tree) != nil {
		return nil, nil
	}
	found := sections(tree, nil, t.namespace)
	if len(found) == 0 {
		return nil, nil
	}
	if err := checkKeys(o.root, o.chunk.line); err != nil {
		return nil, o.fail("values", err)
	}
	var patch []jsonpatch.Operation
	var errs []error
	for _, v := range found {
		edit := t.values(v)
		if edit.Err != nil {
			errs = append(errs, o.fail(v.String(), atLine(nodeAt(o.root, v.Keys).Line, edit.Err)))
			continue
		}
		t.result.Decisions = append(t.result.Decisions, Decision{v.String(), edit.Verdict, edit.Details, edit.Warnings})
		for _, op := range edit.Patch {
			op.Path = pathOf(v.Keys) + op.Path
			patch = append(patch, op)
		}
	}
	return patch, errors.Join(errs...)
}

// mayBeValues is true for a mapping that is no object and speaks of Istio.
func mayBeValues(n *yaml.Node) bool {
	if n == nil || n.Kind != yaml.MappingNode || lookup(n, "apiVersion") != nil || lookup(n, "kind") != nil {
		return false
	}
	nodes := 0
	var speaks func(*yaml.Node) bool
	speaks = func(n *yaml.Node) bool {
		if nodes++; nodes > maxNodes {
			return false
		}
		return n.Kind == yaml.ScalarNode && strings.Contains(strings.ToLower(n.Value), "istio") || slices.ContainsFunc(n.Content, speaks)
	}
	return speaks(n)
}

// sections finds the mappings from which an edge's pod is made, the outer first.
func sections(tree map[string]any, keys []string, namespace string) []Values {
	var found []Values
	if makesEdge(tree, keys) {
		found = append(found, Values{Namespace: namespace, Keys: keys, section: tree})
	}
	if len(keys) > maxDepth {
		return found
	}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if inner, ok := tree[key].(map[string]any); ok {
			found = append(found, sections(inner, append(keys[:len(keys):len(keys)], key), namespace)...)
		}
	}
	return found
}

// makesEdge tells a section by its content: the shape of these charts, and a mark
// of an edge in it.
func makesEdge(v map[string]any, keys []string) bool {
	shaped := false
	for key, isIt := range map[string]func(any) bool{
		podAnnotations: isMapping, podLabels: isMapping, valuesVolumes: isSequence, valuesMounts: isSequence,
		valuesEnv: func(v any) bool { return isMapping(v) || isSequence(v) }, valuesSidecars: isSequence,
	} {
		if value, there := v[key]; there && value != nil {
			if !isIt(value) {
				return false
			}
			shaped = true
		}
	}
	if !shaped {
		return false
	}
	if len(keys) > 0 && slices.Contains(charts, keys[len(keys)-1]) || v["enableAES"] != nil {
		return true
	}
	for _, name := range envNames(v) {
		if strings.HasPrefix(name, "AMBASSADOR_") || strings.HasPrefix(name, "AES_") {
			return true
		}
	}
	repository := imageOf(v)
	return slices.ContainsFunc(charts, func(c string) bool { return strings.Contains(repository, "/"+c) || strings.HasPrefix(repository, c) })
}

func isMapping(v any) bool { _, ok := v.(map[string]any); return ok }

func isSequence(v any) bool { _, ok := v.([]any); return ok }

// imageOf is the image that values name, as far as they do.
func imageOf(v map[string]any) string {
	if image, ok := v["image"].(string); ok {
		return image
	}
	image, _ := v["image"].(map[string]any)
	if full := word(image["fullImageOverride"]); full != "" {
		return full
	}
	repository, tag := word(image["repository"]), word(image["tag"])
	if repository != "" && tag != "" {
		return repository + ":" + tag
	}
	return repository
}

// word is a scalar as a chart prints it, empty for anything else.
func word(v any) string {
	switch v.(type) {
	case string, bool, json.Number:
		return fmt.Sprint(v)
	}
	return ""
}

// envNames are the names of the variables that values set.
func envNames(v map[string]any) []string {
	var names []string
	for _, e := range envOf(v) {
		names = append(names, word(e.item["name"]))
	}
	return names
}

// variable is one environment variable and where it stands in values: under a key
// of a mapping or index of a list.
type variable struct {
	item       map[string]any
	place, key string
}

// envOf reads env and envRaw, each a mapping of names or a list as in a pod.
func envOf(v map[string]any) []variable {
	var out []variable
	for _, place := range []string{valuesEnv, valuesEnvRaw} {
		switch env := v[place].(type) {
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(env)) {
				item := map[string]any{"name": name}
				if place == valuesEnv {
					item["name"] = strings.ToUpper(name) // as the charts do
				}
				if from, ok := env[name].(map[string]any); ok {
					maps.Copy(item, from)
				} else {
					item["value"] = word(env[name])
				}
				out = append(out, variable{item, place, name})
			}
		case []any:
			for i, e := range env {
				if item, ok := e.(map[string]any); ok {
					out = append(out, variable{item, place, fmt.Sprint(i)})
				}
			}
		}
	}
	return out
}
