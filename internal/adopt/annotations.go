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

// takeAnnotations takes out of Istio's annotations what asks for certificates and
// for no capture. What else the user says in them stays.
func (a *adopter) takeAnnotations() {
	annotations := a.pod.Annotations
	if v, ok := annotations[policy.IstioProxyConfigKey]; ok {
		a.takeConfig(v)
	}
	for _, key := range []string{policy.IstioUserVolumeMount, policy.IstioUserVolumeKey} {
		if v, ok := annotations[key]; ok {
			a.takeNamed(key, v)
		}
	}
	if !a.byIstio {
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
	if inject.IsTrue(a.pod.Labels[policy.IstioInjectKey]) && !slices.Contains(a.choice.KeepLabels, policy.IstioInjectKey) {
		a.dropLabels = append(a.dropLabels, policy.IstioInjectKey)
	}
}

// replace sets an annotation to what is left of it.
func (a *adopter) replace(key, before, after string) {
	switch after {
	case before:
	case "":
		a.dropAnnotations = append(a.dropAnnotations, key)
	default:
		a.setAnnotations[key] = after
	}
}

// takeConfig edits proxy.istio.io/config.
func (a *adopter) takeConfig(value string) {
	field := "metadata.annotations[" + policy.IstioProxyConfigKey + "]"
	config, ok := readConfig(value).(object)
	if !ok {
		a.fail(field, "it is no YAML mapping, so Istio does not read it; correct it")
		return
	}
	metadata, _ := config["proxyMetadata"].(items)
	if metadata == nil && config["proxyMetadata"] != nil {
		a.fail(field+".proxyMetadata", "it is no mapping, so Istio does not read it; correct it")
		return
	}
	var drop [][]string
	for name, v := range metadata {
		switch text := fmt.Sprint(v); {
		case name == "OUTPUT_CERTS",
			name == "ISTIO_META_DNS_CAPTURE" && text == "false" && a.byIstio:
			drop = append(drop, []string{"proxyMetadata", name})
		case name == "SECRET_TTL" && a.byIstio:
			a.takeTTL(field+".proxyMetadata[SECRET_TTL]", text)
			drop = append(drop, []string{"proxyMetadata", name})
		}
	}
	if config["holdApplicationUntilProxyStarts"] == true && a.byIstio {
		drop = append(drop, []string{"holdApplicationUntilProxyStarts"})
	}
	left, err := withoutKeys(value, drop)
	if err != nil {
		a.fail(field, "%v", err)
		return
	}
	a.replace(policy.IstioProxyConfigKey, value, left)
}

// withoutKeys removes keys from a YAML mapping and leaves the rest of its text as
// it is where that can be done by lines. It is empty when nothing is left.
func withoutKeys(text string, drop [][]string) (string, error) {
	if len(drop) == 0 {
		return text, nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", err
	}
	gone := map[int]bool{}
	byLines := true
	for _, keys := range drop {
		byLines = cut(doc.Content[0], keys, gone) && byLines
	}
	if len(doc.Content[0].Content) == 0 {
		return "", nil
	}
	var want map[string]any
	if err := doc.Decode(&want); err != nil {
		return "", err
	}
	means := func(text string) bool {
		var got map[string]any
		return yaml.Unmarshal([]byte(text), &got) == nil && reflect.DeepEqual(got, want)
	}
	var kept []string
	for i, line := range strings.SplitAfter(text, "\n") {
		if !gone[i+1] {
			kept = append(kept, line)
		}
	}
	if out := strings.Join(kept, ""); byLines && means(out) {
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
	if !means(out) {
		return "", errors.New("it cannot be written back without a change in meaning")
	}
	return out, nil
}

// cut removes one key, and the mapping that it leaves empty. It notes the lines
// that go; false means that they cannot be told.
func cut(m *yaml.Node, keys []string, gone map[int]bool) bool {
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		if k.Value != keys[0] {
			continue
		}
		ok := m.Style&yaml.FlowStyle == 0
		if len(keys) > 1 {
			ok = cut(v, keys[1:], gone) && ok
			if len(v.Content) > 0 {
				return ok
			}
		} else if v.Kind != yaml.ScalarNode || v.Line != k.Line || v.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			ok = false
		}
		gone[k.Line] = true
		m.Content = slices.Delete(m.Content, i, i+2)
		return ok
	}
	return false
}

// takeNamed edits userVolume and userVolumeMount: the certificates' entry goes,
// and the others keep their text.
func (a *adopter) takeNamed(key, value string) {
	field := "metadata.annotations[" + key + "]"
	entries, isList, err := entriesOf(value)
	if err != nil {
		a.fail(field, "%v, so Istio does not read it; correct it", err)
		return
	}
	var left []entry
	for _, e := range entries {
		if a.volume == "" || e.name != a.volume {
			left = append(left, e)
			continue
		}
		if wrong := foreign(key, e.value); wrong != "" {
			a.fail(field+"["+e.name+"]", "%s", wrong)
		}
	}
	if len(left) == len(entries) {
		return
	}
	a.replace(key, value, written(left, isList))
}

// foreign says what an entry asks for that Isthmus does not.
func foreign(key string, value json.RawMessage) string {
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

// entry is one volume or mount of an annotation, as it is written there.
type entry struct {
	name  string
	value json.RawMessage
}

// entriesOf reads a JSON list of named objects, or an object by name, in order.
func entriesOf(text string) (entries []entry, isList bool, err error) {
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
	var whole map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &whole); err != nil {
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

// written puts entries back; empty when there is none.
func written(entries []entry, isList bool) string {
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
