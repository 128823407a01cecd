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
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// Values is a section of Helm values from which a chart renders the pod of an edge.
type Values struct {
	// Namespace is the namespace of the release.
	Namespace string
	// Keys is the path from the document to the section: empty, or the name of a
	// subchart.
	Keys []string
	// section holds the values of the section.
	section map[string]any
}

// String names the section in the report: "values", "values/emissary-ingress".
func (v Values) String() string { return strings.Join(append([]string{"values"}, v.Keys...), "/") }

// Keys of the Emissary, Edge Stack and Ambassador charts that shape the pod.
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

// rawKeys are the keys whose values are text that the charts render as a template.
var rawKeys = []string{valuesEnvRaw, "volumesRaw", "volumeMountsRaw"}

// manualIntegrationMarkers are strings that such text contains if it is part of a
// manual integration.
var manualIntegrationMarkers = []string{inject.SecretDirEnv, "OUTPUT_CERTS", patches.CertsVolume}

// checkRawKeys returns an error for each part of a manual integration in template text.
func (v Values) checkRawKeys() error {
	var errs []error
	for _, key := range rawKeys {
		text, _ := v.section[key].(string)
		for _, part := range manualIntegrationMarkers {
			if strings.Contains(text, part) {
				structured := strings.TrimSuffix(key, "Raw")
				errs = append(errs, fmt.Errorf("%s: %s is in text that the chart renders as a template, which adopt cannot edit; move it to %s, which all of these charts have", key, part, structured))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// edgeCharts are the names of the edge's charts, as image names and as keys of a parent
// chart's values.
var edgeCharts = []string{"emissary-ingress", "emissary", "ambassador", "edge-stack", "aes"}

// transformValues edits a document that may hold Helm values: a mapping that is not a
// Kubernetes object. found is true if it holds values of an edge.
func (t *transformer) transformValues(document *parsedDocument) (patch []jsonpatch.Operation, found bool, err error) {
	if !mentionsIstio(document.root) {
		return nil, false, nil
	}
	// Text that cannot be parsed is not Helm values.
	raw, err := toJSON(document.raw)
	if err != nil {
		return nil, false, nil
	}
	var tree map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if dec.Decode(&tree) != nil {
		return nil, false, nil
	}
	sections := edgeSections(tree, nil, t.namespace)
	if len(sections) == 0 {
		return nil, false, nil
	}
	if document.duplicates, err = checkKeys(document.root, nil); err != nil {
		return nil, true, document.wrapError("values", err)
	}
	var errs []error
	for _, v := range sections {
		edit := t.editValues(v)
		if edit.Err != nil {
			errs = append(errs, document.wrapError(v.String(), withLine(nodeAt(document.root, v.Keys).Line, edit.Err)))
			continue
		}
		warnings, err := document.checkDuplicates(v.Keys, len(edit.Patch) > 0)
		if err != nil {
			errs = append(errs, document.wrapError(v.String(), err))
			continue
		}
		t.result.Decisions = append(t.result.Decisions, Decision{v.String(), edit.Summary, edit.Details, append(edit.Warnings, warnings...)})
		for _, op := range edit.Patch {
			op.Path = jsonPointer(v.Keys) + op.Path
			patch = append(patch, op)
		}
	}
	return patch, true, errors.Join(errs...)
}

// maxDepth limits the depth of sections in sections.
const maxDepth = 8

// mentionsIstio reports whether a node is a mapping that is not a Kubernetes object and
// contains the word Istio.
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

// edgeSections returns the sections from which the pod of an edge is rendered, outer
// sections first.
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

// isEdgeSection reports whether a mapping has keys of the edge's charts and also names an
// edge: by its name, by enableAES, by an environment variable or by the image.
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

// imageReference returns the image that the values name, without a tag if they name
// none.
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

// scalarText returns a scalar as a chart prints it; empty for other values.
func scalarText(v any) string {
	switch v.(type) {
	case string, bool, json.Number:
		return fmt.Sprint(v)
	}
	return ""
}

// envNames returns the names of the environment variables in the values.
func envNames(v map[string]any) []string {
	var names []string
	for _, e := range envVariables(v) {
		names = append(names, scalarText(e.fields["name"]))
	}
	return names
}

// envVariable is one environment variable and its path in the values: the parent key
// env or envRaw, and the key or index below it.
type envVariable struct {
	fields      map[string]any
	parent, key string
}

// envVariables returns the variables in env and envRaw, each of which is a mapping by
// name or a list as in a pod.
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
