package adopt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// adoptAnnotations removes from Istio's annotations what asks for certificate files and
// against the capture of traffic. The rest of the annotations stays.
func (a *adopter) adoptAnnotations() {
	annotations := a.pod.Annotations
	if v, ok := annotations[policy.IstioProxyConfigKey]; ok {
		a.adoptProxyConfig(v)
	}
	for _, key := range []string{policy.IstioUserVolumeMount, policy.IstioUserVolumeKey} {
		if v, ok := annotations[key]; ok {
			a.adoptVolumeAnnotation(key, v)
		}
	}
	if !a.usesInjector {
		return
	}
	for _, key := range []string{policy.IstioInboundPortsKey, policy.IstioOutboundRangesKey} {
		switch v, ok := annotations[key]; {
		case ok && v == "":
			a.dropAnnotations = append(a.dropAnnotations, key)
		case ok:
			a.warn("annotation %s stays %q: Istio captures what it says", key, v)
		default:
			a.warn("annotation %s is not there, so Istio captures traffic of the edge today; mode istio captures none, unless you set %s: \"*\"", key, key)
		}
	}
	if inject.IsTrue(annotations[policy.IstioInjectKey]) {
		a.dropAnnotations = append(a.dropAnnotations, policy.IstioInjectKey)
	}
	if inject.IsTrue(a.pod.Labels[policy.IstioInjectKey]) && !slices.Contains(a.choices.KeepLabels, policy.IstioInjectKey) {
		a.dropLabels = append(a.dropLabels, policy.IstioInjectKey)
	}
}

// changeAnnotation sets an annotation to its remaining text, or drops it if none remains.
func (a *adopter) changeAnnotation(key, before, after string) {
	switch after {
	case before:
	case "":
		a.dropAnnotations = append(a.dropAnnotations, key)
	default:
		a.editedAnnotations[key] = after
	}
}

// adoptProxyConfig removes settings from proxy.istio.io/config.
func (a *adopter) adoptProxyConfig(value string) {
	field := "metadata.annotations[" + policy.IstioProxyConfigKey + "]"
	config, ok := parseProxyConfig(value).(fieldMap)
	if !ok {
		a.addError(field, "it is no YAML mapping, so Istio does not read it; correct it")
		return
	}
	metadata, _ := config["proxyMetadata"].(itemMap)
	if metadata == nil && config["proxyMetadata"] != nil {
		a.addError(field+".proxyMetadata", "it is no mapping, so Istio does not read it; correct it")
		return
	}
	var drop [][]string
	for name, v := range metadata {
		switch value := fmt.Sprint(v); {
		case name == "OUTPUT_CERTS",
			name == "ISTIO_META_DNS_CAPTURE" && value == "false" && a.usesInjector:
			drop = append(drop, []string{"proxyMetadata", name})
		case name == "SECRET_TTL" && a.usesInjector:
			a.adoptTTL(field+".proxyMetadata[SECRET_TTL]", value)
			drop = append(drop, []string{"proxyMetadata", name})
		}
	}
	if config["holdApplicationUntilProxyStarts"] == true && a.usesInjector {
		drop = append(drop, []string{"holdApplicationUntilProxyStarts"})
	}
	rest, err := removeYAMLKeys(value, drop)
	if err != nil {
		a.addError(field, "%v", err)
		return
	}
	a.changeAnnotation(policy.IstioProxyConfigKey, value, rest)
}

// removeYAMLKeys removes keys, each given by its path, from a YAML mapping. It preserves
// the rest of the text if the keys can be removed as whole lines. The result is empty if
// no key remains.
func removeYAMLKeys(text string, paths [][]string) (string, error) {
	if len(paths) == 0 {
		return text, nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", err
	}
	removedLines := map[int]bool{}
	byLines := true
	for _, path := range paths {
		byLines = removeYAMLKey(doc.Content[0], path, removedLines) && byLines
	}
	if len(doc.Content[0].Content) == 0 {
		return "", nil
	}
	var want map[string]any
	if err := doc.Decode(&want); err != nil {
		return "", err
	}
	hasSameMeaning := func(text string) bool {
		var got map[string]any
		return yaml.Unmarshal([]byte(text), &got) == nil && reflect.DeepEqual(got, want)
	}
	var lines []string
	for i, line := range strings.SplitAfter(text, "\n") {
		if !removedLines[i+1] {
			lines = append(lines, line)
		}
	}
	if out := strings.Join(lines, ""); byLines && hasSameMeaning(out) {
		return out, nil
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(&doc), e.Close()); err != nil {
		return "", err
	}
	out := b.String()
	if !strings.HasSuffix(text, "\n") {
		out = strings.TrimSuffix(out, "\n")
	}
	if !hasSameMeaning(out) {
		return "", errors.New("it cannot be written back without a change in meaning")
	}
	return out, nil
}

// removeYAMLKey removes the key at a path, and mappings that become empty. It adds the
// lines of both to removedLines. It returns false if they are not whole lines.
func removeYAMLKey(m *yaml.Node, path []string, removedLines map[int]bool) bool {
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		if k.Value != path[0] {
			continue
		}
		ok := m.Style&yaml.FlowStyle == 0
		if len(path) > 1 {
			ok = removeYAMLKey(v, path[1:], removedLines) && ok
			if len(v.Content) > 0 {
				return ok
			}
		} else if v.Kind != yaml.ScalarNode || v.Line != k.Line || v.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			ok = false
		}
		removedLines[k.Line] = true
		m.Content = slices.Delete(m.Content, i, i+2)
		return ok
	}
	return false
}

// adoptVolumeAnnotation removes the entry of the certificates' volume from userVolume or
// userVolumeMount. The other entries keep their text.
func (a *adopter) adoptVolumeAnnotation(key, value string) {
	field := "metadata.annotations[" + key + "]"
	entries, isList, err := parseEntries(value)
	if err != nil {
		a.addError(field, "%v, so Istio does not read it; correct it", err)
		return
	}
	var rest []entry
	for _, e := range entries {
		if a.volume == "" || e.name != a.volume {
			rest = append(rest, e)
			continue
		}
		if problem := unsupportedFields(key, e.value); problem != "" {
			a.addError(field+"["+e.name+"]", "%s", problem)
		}
	}
	if len(rest) == len(entries) {
		return
	}
	a.changeAnnotation(key, value, formatEntries(rest, isList))
}

// unsupportedFields says what an entry asks for and Isthmus does not, or returns "".
func unsupportedFields(key string, value json.RawMessage) string {
	var fields map[string]any
	if err := json.Unmarshal(value, &fields); err != nil {
		return "it is no JSON object; correct it"
	}
	delete(fields, "name")
	if key == policy.IstioUserVolumeKey {
		if _, ok := fields["emptyDir"]; !ok || len(fields) != 1 {
			return fmt.Sprintf("the certificates' volume is %s and no emptyDir; leave the pod as it is, or make it one", value)
		}
		return ""
	}
	delete(fields, "mountPath")
	if fields["readOnly"] == false {
		delete(fields, "readOnly")
	}
	if len(fields) > 0 {
		return fmt.Sprintf("%s sets more than name and mountPath, and Isthmus mounts the whole volume writable; remove the rest", value)
	}
	return ""
}

// entry is a volume or mount in an annotation, with its text there.
type entry struct {
	name  string
	value json.RawMessage
}

// parseEntries reads a JSON list of named objects, or a JSON object by name, in order.
func parseEntries(text string) (entries []entry, isList bool, err error) {
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		var list []json.RawMessage
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return nil, true, fmt.Errorf("it is no JSON list: %w", err)
		}
		for _, raw := range list {
			var m struct{ Name string }
			if err := json.Unmarshal(raw, &m); err != nil {
				return nil, true, fmt.Errorf("%s is no JSON object: %w", raw, err)
			}
			entries = append(entries, entry{m.Name, raw})
		}
		return entries, true, nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		return nil, false, fmt.Errorf("it is neither a JSON list nor an object: %w", err)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	_, _ = dec.Token() // the brace
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, false, err
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, false, err
		}
		entries = append(entries, entry{fmt.Sprint(name), raw})
	}
	return entries, false, nil
}

// formatEntries is the inverse of parseEntries. It returns "" for no entries.
func formatEntries(entries []entry, isList bool) string {
	if len(entries) == 0 {
		return ""
	}
	parts := make([]string, len(entries))
	for i, e := range entries {
		parts[i] = string(e.value)
		if !isList {
			parts[i] = string(encode(e.name)) + ": " + parts[i]
		}
	}
	if isList {
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
