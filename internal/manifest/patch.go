package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"gomodules.xyz/jsonpatch/v2"
)

// change is an edit of a document.
type change struct {
	patch []jsonpatch.Operation
	// spellings are the texts of fields that are null or empty after the edit, by their
	// JSON pointers. A field without one is spelled as usual.
	spellings map[string]string
}

// applyChange parses a document and applies a change to its tree. It returns the top node
// and the spellings of nodes that are null or empty.
func applyChange(d rawDocument, c change) (*yaml.Node, map[*yaml.Node]string, error) {
	root, err := parseDocument(d)
	if err != nil {
		return nil, nil, err
	}
	e := treeEditor{root: root}
	for _, op := range c.patch {
		if err := e.apply(op); err != nil {
			return nil, nil, err
		}
	}
	spellings := map[*yaml.Node]string{}
	for path, text := range c.spellings {
		keys, err := parsePointer(path)
		if err != nil {
			return nil, nil, err
		}
		n := root
		for _, key := range keys {
			if n = childNode(n, key); n == nil {
				break
			}
		}
		if n != nil && isEmptyNode(n) {
			spellings[n] = text
		}
	}
	return root, spellings, nil
}

// apply applies one JSON Patch operation.
func (e *treeEditor) apply(op jsonpatch.Operation) error {
	keys, err := parsePointer(op.Path)
	if err != nil || len(keys) == 0 {
		return fmt.Errorf("patch %s %q: want a path below the document", op.Operation, op.Path)
	}
	parent := e.root
	for i, key := range keys[:len(keys)-1] {
		if parent, err = e.descend(parent, key); err != nil {
			return fmt.Errorf("patch %s %q: %w", op.Operation, op.Path, err)
		}
		if parent == nil {
			return fmt.Errorf("patch %s %q: nothing at %q", op.Operation, op.Path, "/"+strings.Join(keys[:i+1], "/"))
		}
	}
	var value *yaml.Node
	switch op.Operation {
	case "test":
		return nil // patchJSON evaluates the test
	case "remove":
	case "add", "replace":
		if value, err = newNode(op.Value); err != nil {
			return fmt.Errorf("patch %s %q: %w", op.Operation, op.Path, err)
		}
	default:
		return fmt.Errorf("patch %s %q: want add, replace or remove", op.Operation, op.Path)
	}
	last := keys[len(keys)-1]
	if err := e.release(parent, last, op.Operation); err != nil {
		return fmt.Errorf("patch %s %q: %w", op.Operation, op.Path, err)
	}
	if err := editEntry(parent, last, op.Operation, value); err != nil {
		return fmt.Errorf("patch %s %q: %w", op.Operation, op.Path, err)
	}
	return nil
}

// editEntry adds, replaces or removes one entry of a mapping or sequence.
func editEntry(parent *yaml.Node, key, op string, value *yaml.Node) error {
	switch parent.Kind {
	case yaml.MappingNode:
		keyIndex := childIndex(parent, key) - 1
		switch {
		case op == "remove" && keyIndex >= 0:
			parent.Content = append(parent.Content[:keyIndex], parent.Content[keyIndex+2:]...)
		case op != "remove" && keyIndex >= 0:
			keepQuotes(parent.Content[keyIndex+1], value)
			parent.Content[keyIndex+1] = value
		case op == "add":
			setBlockStyle(parent)
			parent.Content = append(parent.Content, stringNode(key), value)
		default:
			return fmt.Errorf("no key %q", key)
		}
	case yaml.SequenceNode:
		if op == "add" {
			setBlockStyle(parent)
		}
		if op == "add" && key == "-" {
			parent.Content = append(parent.Content, value)
			return nil
		}
		i, err := parseIndex(key)
		if err != nil || i > len(parent.Content) || i == len(parent.Content) && op != "add" {
			return fmt.Errorf("no item %q of %d", key, len(parent.Content))
		}
		switch op {
		case "remove":
			parent.Content = append(parent.Content[:i], parent.Content[i+1:]...)
		case "replace":
			parent.Content[i] = value
		default:
			rest := append([]*yaml.Node{value}, parent.Content[i:]...)
			parent.Content = append(parent.Content[:i], rest...)
		}
	default:
		return fmt.Errorf("want a mapping or a sequence to edit")
	}
	return nil
}

// setBlockStyle sets an empty mapping or sequence to block style, so that new entries
// do not end up on one long line. An empty one can only be written in flow style.
func setBlockStyle(n *yaml.Node) {
	if len(n.Content) == 0 {
		n.Style &^= yaml.FlowStyle
	}
}

// keepQuotes gives a quoted string the quotes of the string that it replaces.
func keepQuotes(old, value *yaml.Node) {
	const quotes = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle
	if old.Style&quotes != 0 && value.Kind == yaml.ScalarNode && value.Style&quotes != 0 && isPrintable(value.Value) {
		value.Style = old.Style
	}
}

// childNode returns the entry of a mapping or sequence that one key of a JSON pointer
// names; nil if there is none.
func childNode(n *yaml.Node, key string) *yaml.Node {
	if i := childIndex(n, key); i >= 0 {
		return n.Content[i]
	}
	return nil
}

// childIndex returns the index of an entry's value in the content of a mapping or
// sequence; -1 if there is none. Of a key that occurs twice the last value counts.
func childIndex(n *yaml.Node, key string) int {
	switch n.Kind {
	case yaml.SequenceNode:
		if i, err := parseIndex(key); err == nil && i < len(n.Content) {
			return i
		}
	case yaml.MappingNode:
		for i := len(n.Content) - 2; i >= 0; i -= 2 {
			if n.Content[i].Kind == yaml.ScalarNode && n.Content[i].Value == key {
				return i + 1
			}
		}
	}
	return -1
}

// nodeAt returns the node at a path of keys, or its closest ancestor if the path does
// not exist. It resolves aliases.
func nodeAt(root *yaml.Node, keys []string) *yaml.Node {
	n := root
	for _, key := range keys {
		next := childNode(resolveAlias(n), key)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

func parseIndex(key string) (int, error) {
	i, err := strconv.Atoi(key)
	if err == nil && (i < 0 || strconv.Itoa(i) != key) {
		err = fmt.Errorf("want an index, got %q", key)
	}
	return i, err
}

// parsePointer splits a JSON pointer into its keys.
func parsePointer(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	if path[0] != '/' {
		return nil, fmt.Errorf("want a path that starts with /, got %q", path)
	}
	keys := strings.Split(path[1:], "/")
	for i, key := range keys {
		keys[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(key)
	}
	return keys, nil
}

// clearPositions marks nodes as inserted: they have no position in the text.
func clearPositions(n *yaml.Node) {
	n.Line, n.Column = 0, 0
	for _, c := range n.Content {
		clearPositions(c)
	}
}

// jsonPointer formats keys as a JSON pointer.
func jsonPointer(keys []string) string {
	var b strings.Builder
	for _, key := range keys {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
	}
	return b.String()
}
