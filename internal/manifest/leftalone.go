package manifest

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// patchDirectives are the keys, or their beginnings, of a strategic merge patch.
var patchDirectives = []string{"$patch", "$retainKeys", "$setElementOrder/", "$deleteFromPrimitiveList/"}

// patchDirective returns a key by which a value is a strategic merge patch and no whole
// object; empty if there is none.
func patchDirective(value any) string {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			isDirective := func(d string) bool {
				return key == d || strings.HasSuffix(d, "/") && strings.HasPrefix(key, d)
			}
			if slices.ContainsFunc(patchDirectives, isDirective) {
				return key
			}
			if found := patchDirective(inner); found != "" {
				return found
			}
		}
	case []any:
		for _, inner := range v {
			if found := patchDirective(inner); found != "" {
				return found
			}
		}
	}
	return ""
}

// renderedKinds are kinds from which a tool or a controller renders workloads: group and
// kind.
var renderedKinds = map[[2]string]bool{
	{"helm.toolkit.fluxcd.io", "HelmRelease"}: true, {"helm.fluxcd.io", "HelmRelease"}: true, {"flux.weave.works", "HelmRelease"}: true,
	{"helm.cattle.io", "HelmChart"}: true, {"helm.cattle.io", "HelmChartConfig"}: true, {"helm.crossplane.io", "Release"}: true,
	{"argoproj.io", "Application"}: true, {"argoproj.io", "ApplicationSet"}: true, {"getambassador.io", "AmbassadorInstallation"}: true,
	{"kustomize.toolkit.fluxcd.io", "Kustomization"}: true, {"kustomize.config.k8s.io", "Kustomization"}: true, {"fleet.cattle.io", "Bundle"}: true,
	{"kappctrl.k14s.io", "App"}: true, {"packaging.carvel.dev", "PackageInstall"}: true,
}

// edgeImage matches an image of an edge, as the values of an unknown kind name it.
var edgeImage = regexp.MustCompile(`^(?:[a-z0-9][a-z0-9.-]*(?::[0-9]+)?/)+(?:` + strings.Join(edgeCharts, "|") + `)(?::[A-Za-z0-9_.-]+)?(?:@sha256:[0-9a-f]+)?$`)

// reportLeftAlone adds a decision about an object or document that is left alone although
// it can hold an edge.
func (t *transformer) reportLeftAlone(document *parsedDocument, n *yaml.Node) {
	if n = resolveAlias(n); n == nil {
		return
	}
	objectType := typeMeta{scalarValue(mappingValue(n, "apiVersion")), scalarValue(mappingValue(n, "kind"))}
	isObject := objectType.apiVersion != "" && objectType.kind != ""
	path, holdsPod := findNode(n, isPodSpec)
	image, namesEdge := findNode(n, func(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && edgeImage.MatchString(n.Value) })
	why := ""
	switch {
	case n.Kind == yaml.SequenceNode:
		why = "a list is no Kubernetes object; write its items as documents of their own, or below items: of a List"
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return
	case n.Kind == yaml.ScalarNode:
		why = "text is no Kubernetes object"
	case !isObject:
		why = "it has no apiVersion and kind"
	case renderedKinds[[2]string{objectType.group(), objectType.kind}]:
		why = "workloads are rendered from it; give inject what is rendered, such as the output of helm template or kustomize build"
	case holdsPod:
		why = fmt.Sprintf("the kind %s of %s is not known; it holds a pod at %s", objectType.kind, objectType.apiVersion, fieldPath(path))
	case namesEdge:
		why = fmt.Sprintf("the kind %s of %s is not known; it names the image of an edge at %s", objectType.kind, objectType.apiVersion, fieldPath(image))
	}
	name := fmt.Sprintf("%s: document %d", document.source, document.number)
	if isObject {
		m := mappingValue(n, "metadata")
		name = strings.ToLower(objectType.kind) + "/" + joinName(scalarValue(mappingValue(m, "namespace")), scalarValue(mappingValue(m, "name")))
		if line := notesLine(n); line > 0 {
			t.result.Warnings = append(t.result.Warnings, Warning{name, document.unknownField(objectType, "NOTES", line)})
		}
	}
	if why != "" {
		t.decide(name, "not looked into ("+why+")")
	}
}

// isPodSpec reports whether a node looks like the spec of a pod: it has a list of containers
// with images.
func isPodSpec(n *yaml.Node) bool {
	if n.Kind != yaml.MappingNode {
		return false
	}
	containers := resolveAlias(mappingValue(n, "containers"))
	return containers != nil && containers.Kind == yaml.SequenceNode &&
		slices.ContainsFunc(containers.Content, func(c *yaml.Node) bool { return mappingValue(c, "image") != nil })
}

// findNode returns the path of the first value at or below n that matches.
func findNode(n *yaml.Node, matches func(*yaml.Node) bool) (path []string, found bool) {
	var visit func(n *yaml.Node, keys []string) bool
	visit = func(n *yaml.Node, keys []string) bool {
		if matches(n) {
			path = keys
			return true
		}
		for i, c := range n.Content {
			key := strconv.Itoa(i)
			if n.Kind == yaml.MappingNode {
				if i%2 == 0 {
					continue
				}
				key = n.Content[i-1].Value
			}
			if visit(c, append(keys[:len(keys):len(keys)], key)) {
				return true
			}
		}
		return false
	}
	found = visit(n, nil)
	return path, found
}

// unknownFields returns a warning for each field at the top of an object that its kind does
// not have, such as the notes that Helm prints behind the last object.
func (d *parsedDocument) unknownFields(objectType typeMeta, value map[string]any, keys []string) []string {
	known := []string{"apiVersion", "kind", "metadata", "spec", "status"}
	if objectType.isList() {
		known = []string{"apiVersion", "kind", "metadata", "items"}
	}
	var warnings []string
	n := resolveAlias(nodeAt(d.root, keys))
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if _, ok := value[key.Value]; ok && !slices.Contains(known, key.Value) {
			warnings = append(warnings, d.unknownField(objectType, key.Value, key.Line))
		}
	}
	return warnings
}

func (t *transformer) warnOfUnknownFields(document *parsedDocument, objectType typeMeta, value map[string]any, keys []string) {
	for _, text := range document.unknownFields(objectType, value, keys) {
		t.result.Warnings = append(t.result.Warnings, Warning{strings.ToLower(objectType.kind), text})
	}
}

func (d *parsedDocument) unknownField(objectType typeMeta, key string, line int) string {
	text := fmt.Sprintf("%s:%d: %s is no field of a %s", d.source, d.sourceLine(line), key, objectType.kind)
	if key == "NOTES" {
		text += ": Helm prints it behind the manifests; remove it, or use helm template, which does not print it"
	}
	return text
}

// notesLine returns the line of the key NOTES of an object; zero if it has none.
func notesLine(n *yaml.Node) int {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "NOTES" {
			return n.Content[i].Line
		}
	}
	return 0
}

// withNotesHint adds to the error of a document that does not parse that it ends with the
// notes that Helm prints, if it does.
func withNotesHint(d rawDocument, err error) error {
	number := 1
	for line := range bytes.Lines(d.body) {
		if bytes.HasPrefix(line, []byte("NOTES:")) {
			return &lineError{line: number, text: err.Error() + "; here start the NOTES that Helm prints behind the manifests: remove them, or use helm template, which does not print them"}
		}
		number++
	}
	return err
}

// checkDuplicates returns a warning for each duplicate key that concerns the object at a
// path. It is an error if the object is edited and the two values differ, because the one
// that counts is perhaps not the one that its author reads.
func (d *parsedDocument) checkDuplicates(keys []string, edited bool) (warnings []string, err error) {
	for i := range d.duplicates {
		k := &d.duplicates[i]
		switch {
		case !k.concerns(keys):
			continue
		case edited && !k.same:
			text := fmt.Sprintf("duplicate key %q with another value, first on line %d: remove one of them", k.key, d.sourceLine(k.first))
			return nil, &lineError{line: k.line, text: text}
		}
		k.reported = true
		warnings = append(warnings, d.describeDuplicate(*k))
	}
	return warnings, nil
}

func (d *parsedDocument) describeDuplicate(k duplicateKey) string {
	text := fmt.Sprintf("%s:%d: duplicate key %q, first on line %d", d.source, d.sourceLine(k.line), k.key, d.sourceLine(k.first))
	if !k.same {
		text += " with another value: Kubernetes uses the last one"
	}
	return text
}
