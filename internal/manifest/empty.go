package manifest

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"gomodules.xyz/jsonpatch/v2"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// isEmptyNode reports whether a node is null or a collection without entries.
func isEmptyNode(n *yaml.Node) bool {
	if n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 || n.Kind == yaml.AliasNode {
		return false
	}
	if n.Kind == yaml.ScalarNode {
		return n.ShortTag() == "!!null"
	}
	return len(n.Content) == 0
}

// keyEnd returns the offset after the colon of a key of a block mapping; -1 if it is not
// on the key's line.
func (x lineIndex) keyEnd(key int) int {
	end := x.lineEnd(key)
	pos := key
	if b := x.text[key]; b == '"' || b == '\'' {
		if pos = quotedEnd(x.text, key); pos < 0 || pos > end {
			return -1
		}
	}
	for ; pos < end; pos++ {
		if x.text[pos] == ':' && (pos+1 == end || x.text[pos+1] == ' ' || x.text[pos+1] == '\t') {
			return pos + 1
		}
	}
	return -1
}

// spelling returns the text of a value of a block mapping that is null or empty, with the
// blanks between colon and value: " ~", " {}", "". ok is false if the value is not on the
// line of its key.
func (x lineIndex) spelling(key, value *yaml.Node) (text string, ok bool) {
	at := x.offset(key)
	if at < 0 || !isEmptyNode(value) {
		return "", false
	}
	colon := x.keyEnd(at)
	if colon < 0 {
		return "", false
	}
	if value.Kind == yaml.ScalarNode && value.Value == "" {
		return "", true
	}
	begin := x.offset(value)
	end := begin + len(value.Value)
	if value.Kind != yaml.ScalarNode {
		c, ok := scanFlow(x.text, begin)
		if !ok || len(c.entries) > 0 {
			return "", false
		}
		end = c.close + 1
	}
	if begin < colon || end > len(x.text) || len(bytes.Trim(x.text[colon:begin], " \t")) > 0 {
		return "", false
	}
	return string(x.text[colon:end]), true
}

// flowSpelling returns the text of a value in flow style that is null or empty.
func (x lineIndex) flowSpelling(value *yaml.Node) (text string, ok bool) {
	if !isEmptyNode(value) {
		return "", false
	}
	if value.Kind == yaml.ScalarNode {
		return value.Value, true
	}
	c, ok := scanFlow(x.text, x.offset(value))
	if !ok || len(c.entries) > 0 {
		return "", false
	}
	return string(x.text[c.open : c.close+1]), true
}

// emptyText returns what follows the colon of a key whose value is null or empty.
func (s *splicer) emptyText(n *yaml.Node) string {
	text, ok := s.flow.spellings[n]
	switch {
	case !ok && n.Kind == yaml.MappingNode:
		return " {}"
	case !ok && n.Kind == yaml.SequenceNode:
		return " []"
	case !ok:
		return " null"
	case text != "" && !strings.ContainsAny(text[:1], " \t"):
		return " " + text
	}
	return text
}

// emptyFields returns the spellings of the fields below a path that are null or empty, by
// their JSON pointers from there. A list or mapping that is spelled as usual is left out,
// except for the metadata of a template, which a patch can add and remove as a whole.
func (d *parsedDocument) emptyFields(keys []string) map[string]string {
	x := d.lines()
	found := map[string]string{}
	var visit func(n *yaml.Node, path string)
	visit = func(n *yaml.Node, path string) {
		for i, c := range n.Content {
			switch {
			case n.Kind == yaml.SequenceNode:
				visit(c, path+"/"+strconv.Itoa(i))
			case i%2 == 0: // a key
			case !isEmptyNode(c):
				visit(c, path+jsonPointer([]string{n.Content[i-1].Value}))
			default:
				text, ok := x.spelling(n.Content[i-1], c)
				usual := text == " {}" || text == " []"
				if n.Style&yaml.FlowStyle != 0 {
					text, ok = x.flowSpelling(c)
					usual = text == "{}" || text == "[]"
				}
				at := path + jsonPointer([]string{n.Content[i-1].Value})
				if ok && (at == "/metadata" || !usual) {
					found[at] = text
				}
			}
		}
	}
	visit(resolveAlias(nodeAt(d.root, keys)), "")
	return found
}

// isCollection reports whether a spelling is that of a mapping or list.
func isCollection(spelling string) bool {
	text := strings.TrimSpace(spelling)
	return strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[")
}

// statusPath is the path of the status annotation.
var statusPath = jsonPointer([]string{"metadata", "annotations", policy.StatusKey})

// recordEmptyFields adds the workload's null and empty fields that a patch fills to the
// status annotation that the patch writes. Without them uninject could not restore them.
func recordEmptyFields(patch []jsonpatch.Operation, w Workload) []jsonpatch.Operation {
	if len(patch) == 0 || w.emptyFields == nil {
		return patch
	}
	empty := w.emptyFields()
	maps.DeleteFunc(empty, func(path, _ string) bool {
		return !slices.ContainsFunc(patch, func(op jsonpatch.Operation) bool {
			return op.Path == path || strings.HasPrefix(op.Path, path+"/")
		})
	})
	if len(empty) == 0 {
		return patch
	}
	patch = slices.Clone(patch) // results of the engine share it
	for i := range patch {
		op := &patch[i]
		switch value := op.Value.(type) {
		case string:
			if op.Path == statusPath {
				op.Value = withEmptyFields(value, empty)
			}
		case map[string]string:
			if text, ok := value[policy.StatusKey]; ok && op.Path == "/metadata/annotations" {
				value = maps.Clone(value)
				value[policy.StatusKey] = withEmptyFields(text, empty)
				op.Value = value
			}
		}
	}
	return patch
}

// withEmptyFields adds fields to a status. The engine has just written it.
func withEmptyFields(text string, empty map[string]string) string {
	var status inject.Status
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return text
	}
	status.Empty = empty
	out, err := json.Marshal(status)
	if err != nil {
		return text
	}
	return string(out)
}

// restoreEmptyFields changes operations that remove a field into ones that make it null, if
// it was null before.
func restoreEmptyFields(patch []jsonpatch.Operation, empty map[string]string) []jsonpatch.Operation {
	for i := range patch {
		op := &patch[i]
		if text, ok := empty[op.Path]; ok && op.Operation == "remove" && !isCollection(text) {
			*op = jsonpatch.NewOperation("replace", op.Path, nil)
		}
	}
	return patch
}
