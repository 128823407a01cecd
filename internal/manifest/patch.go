package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"gomodules.xyz/jsonpatch/v2"
)

// applyOperation applies one JSON Patch operation to a tree of nodes. The tree must
// have no aliases and merge keys: see expandAliases.
func applyOperation(root *yaml.Node, op jsonpatch.Operation) error {
	keys, err := parsePointer(op.Path)
	if err != nil || len(keys) == 0 {
		return fmt.Errorf("patch %s %q: want a path below the document", op.Operation, op.Path)
	}
	parent := root
	for i, key := range keys[:len(keys)-1] {
		if parent = childNode(parent, key); parent == nil {
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
		clearPositions(value)
	default:
		return fmt.Errorf("patch %s %q: want add, replace or remove", op.Operation, op.Path)
	}
	if err := editEntry(parent, keys[len(keys)-1], op.Operation, value); err != nil {
		return fmt.Errorf("patch %s %q: %w", op.Operation, op.Path, err)
	}
	return nil
}

// editEntry adds, replaces or removes one entry of a mapping or sequence.
func editEntry(parent *yaml.Node, key, op string, value *yaml.Node) error {
	switch parent.Kind {
	case yaml.MappingNode:
		keyIndex := -1
		for i := 0; i+1 < len(parent.Content); i += 2 {
			if parent.Content[i].Value == key {
				keyIndex = i
			}
		}
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
	if n.Kind == yaml.SequenceNode {
		if i, err := parseIndex(key); err == nil && i < len(n.Content) {
			return n.Content[i]
		}
		return nil
	}
	return mappingValue(n, key)
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
