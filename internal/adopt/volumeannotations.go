package adopt

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

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
		return "it is not a JSON object; correct it"
	}
	delete(fields, "name")
	if key == policy.IstioUserVolumeKey {
		if _, ok := fields["emptyDir"]; !ok || len(fields) != 1 {
			return fmt.Sprintf("the certificates' volume is %s, not an emptyDir; leave the pod as it is, or use an emptyDir", value)
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
			return nil, true, fmt.Errorf("it is not a JSON list: %w", err)
		}
		for _, raw := range list {
			var m struct{ Name string }
			if err := json.Unmarshal(raw, &m); err != nil {
				return nil, true, fmt.Errorf("%s is not a JSON object: %w", raw, err)
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
