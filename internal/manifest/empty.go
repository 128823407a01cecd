package manifest

import (
	"bytes"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
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

// emptyFields returns the spellings of the fields below n that are null or empty, by the
// JSON pointer from n. A list or mapping that is spelled as usual is left out, except for
// the metadata, which a patch can add and remove as a whole.
func (x lineIndex) emptyFields(n *yaml.Node) map[string]string {
	found := map[string]string{}
	var visit func(n *yaml.Node, path string)
	visit = func(n *yaml.Node, path string) {
		switch n.Kind {
		case yaml.SequenceNode:
			for i, c := range n.Content {
				visit(c, path+jsonPointer([]string{strconv.Itoa(i)}))
			}
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				key, value := n.Content[i], n.Content[i+1]
				at := path + jsonPointer([]string{key.Value})
				if !isEmptyNode(value) {
					visit(value, at)
					continue
				}
				text, ok := x.spelling(key, value)
				if n.Style&yaml.FlowStyle != 0 {
					text, ok = x.flowSpelling(value)
				}
				if ok && (at == "/metadata" || value.Kind == yaml.ScalarNode || !isUsualSpelling(text)) {
					found[at] = text
				}
			}
		}
	}
	visit(n, "")
	return found
}

func isUsualSpelling(text string) bool {
	return text == " {}" || text == " []" || text == "{}" || text == "[]"
}
