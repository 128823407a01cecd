package adopt

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

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
