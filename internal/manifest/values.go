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

// manualIntegrationMarkers is what such text has in it when it is part of an integration by hand.
var manualIntegrationMarkers = []string{"AMBASSADOR_ISTIO_SECRET_DIR", "OUTPUT_CERTS", patches.CertsVolume}

// checkRawKeys says which part of an integration by hand stands in text.
func (v Values) checkRawKeys() error {
	var errs []error
	for _, key := range rawKeys {
		text, _ := v.section[key].(string)
		for _, part := range manualIntegrationMarkers {
			if strings.Contains(text, part) {
				structured := strings.TrimSuffix(key, "Raw")
				errs = append(errs, fmt.Errorf("%s: %s is in text that the chart renders, where nothing can be taken out; move it to %s, which every one of the charts has", key, part, structured))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// edgeCharts are the names under which a chart has another's values.
var edgeCharts = []string{"emissary-ingress", "emissary", "ambassador", "edge-stack", "aes"}

// transformValues decides on a document that may hold Helm values: a mapping that
// is no Kubernetes object.
func (t *transformer) transformValues(document *parsedDocument) ([]jsonpatch.Operation, error) {
	if !mentionsIstio(document.root) {
		return nil, nil
	}
	// What cannot be read is none of a chart's values.
	raw, err := toJSON(document.raw)
	if err != nil {
		return nil, nil
	}
	var tree map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if dec.Decode(&tree) != nil {
		return nil, nil
	}
	found := edgeSections(tree, nil, t.namespace)
	if len(found) == 0 {
		return nil, nil
	}
	if err := checkKeys(document.root, document.raw.line); err != nil {
		return nil, document.wrapError("values", err)
	}
	var patch []jsonpatch.Operation
	var errs []error
	for _, v := range found {
		edit := t.editValues(v)
		if edit.Err != nil {
			errs = append(errs, document.wrapError(v.String(), withLine(nodeAt(document.root, v.Keys).Line, edit.Err)))
			continue
		}
		t.result.Decisions = append(t.result.Decisions, Decision{v.String(), edit.Verdict, edit.Details, edit.Warnings})
		for _, op := range edit.Patch {
			op.Path = jsonPointer(v.Keys) + op.Path
			patch = append(patch, op)
		}
	}
	return patch, errors.Join(errs...)
}

// mentionsIstio is true for a mapping that is no object and speaks of Istio.
func mentionsIstio(n *yaml.Node) bool {
	if n == nil || n.Kind != yaml.MappingNode || mappingValue(n, "apiVersion") != nil || mappingValue(n, "kind") != nil {
		return false
	}
	nodes := 0
	var mentions func(*yaml.Node) bool
	mentions = func(n *yaml.Node) bool {
		if nodes++; nodes > maxNodes {
			return false
		}
		return n.Kind == yaml.ScalarNode && strings.Contains(strings.ToLower(n.Value), "istio") || slices.ContainsFunc(n.Content, mentions)
	}
	return mentions(n)
}

// edgeSections finds the mappings from which an edge's pod is made, the outer first.
func edgeSections(tree map[string]any, keys []string, namespace string) []Values {
	var found []Values
	if isEdgeSection(tree, keys) {
		found = append(found, Values{Namespace: namespace, Keys: keys, section: tree})
	}
	if len(keys) > maxDepth {
		return found
	}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if inner, ok := tree[key].(map[string]any); ok {
			found = append(found, edgeSections(inner, append(keys[:len(keys):len(keys)], key), namespace)...)
		}
	}
	return found
}

// isEdgeSection tells a section by its content: the shape of these charts, and a mark
// of an edge in it.
func isEdgeSection(v map[string]any, keys []string) bool {
	hasChartKey := false
	for key, hasType := range map[string]func(any) bool{
		podAnnotations: isMapping, podLabels: isMapping, valuesVolumes: isSequence, valuesMounts: isSequence,
		valuesEnv: func(v any) bool { return isMapping(v) || isSequence(v) }, valuesSidecars: isSequence,
	} {
		if value, ok := v[key]; ok && value != nil {
			if !hasType(value) {
				return false
			}
			hasChartKey = true
		}
	}
	if !hasChartKey {
		return false
	}
	if len(keys) > 0 && slices.Contains(edgeCharts, keys[len(keys)-1]) || v["enableAES"] != nil {
		return true
	}
	for _, name := range envNames(v) {
		if strings.HasPrefix(name, "AMBASSADOR_") || strings.HasPrefix(name, "AES_") {
			return true
		}
	}
	repository := imageReference(v)
	return slices.ContainsFunc(edgeCharts, func(c string) bool { return strings.Contains(repository, "/"+c) || strings.HasPrefix(repository, c) })
}

func isMapping(v any) bool { _, ok := v.(map[string]any); return ok }

func isSequence(v any) bool { _, ok := v.([]any); return ok }

// imageReference is the image that values name, as far as they do.
func imageReference(v map[string]any) string {
	if image, ok := v["image"].(string); ok {
		return image
	}
	image, _ := v["image"].(map[string]any)
	if full := scalarText(image["fullImageOverride"]); full != "" {
		return full
	}
	repository, tag := scalarText(image["repository"]), scalarText(image["tag"])
	if repository != "" && tag != "" {
		return repository + ":" + tag
	}
	return repository
}

// scalarText is a scalar as a chart prints it, empty for anything else.
func scalarText(v any) string {
	switch v.(type) {
	case string, bool, json.Number:
		return fmt.Sprint(v)
	}
	return ""
}

// envNames are the names of the variables that values set.
func envNames(v map[string]any) []string {
	var names []string
	for _, e := range envVariables(v) {
		names = append(names, scalarText(e.fields["name"]))
	}
	return names
}

// envVariable is one environment variable and where it stands in values: under a key
// of a mapping or index of a list.
type envVariable struct {
	fields      map[string]any
	parent, key string
}

// envVariables reads env and envRaw, each a mapping of names or a list as in a pod.
func envVariables(v map[string]any) []envVariable {
	var out []envVariable
	for _, parent := range []string{valuesEnv, valuesEnvRaw} {
		switch env := v[parent].(type) {
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(env)) {
				fields := map[string]any{"name": name}
				if parent == valuesEnv {
					fields["name"] = strings.ToUpper(name) // as the charts do
				}
				if from, ok := env[name].(map[string]any); ok {
					maps.Copy(fields, from)
				} else {
					fields["value"] = scalarText(env[name])
				}
				out = append(out, envVariable{fields, parent, name})
			}
		case []any:
			for i, e := range env {
				if fields, ok := e.(map[string]any); ok {
					out = append(out, envVariable{fields, parent, fmt.Sprint(i)})
				}
			}
		}
	}
	return out
}
