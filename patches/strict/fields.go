package strict

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fields is the tree of field names that a document may use. It is derived from the
// types, so that both always agree.
type fields map[string]fields

func fieldsOf(t reflect.Type) fields {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return fieldsOf(t.Elem())
	case reflect.Struct:
		out := fields{}
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			out[name] = fieldsOf(t.Field(i).Type)
		}
		return out
	default: // a scalar, or a map with keys of the user's choice
		return nil
	}
}

// checkFields returns an error, with the line, for a field that is unknown or occurs
// twice.
func checkFields(n *yaml.Node, known fields, where string) error {
	if known == nil {
		return nil
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for i, item := range n.Content {
			if err := checkFields(item, known, fmt.Sprintf("%s[%d]", where, i)); err != nil {
				return err
			}
		}
	case yaml.MappingNode:
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			sub, ok := known[key.Value]
			if !ok {
				return fmt.Errorf("%d: %s has no field %q; known are %s", key.Line, where, key.Value, known)
			}
			if seen[key.Value] {
				return fmt.Errorf("%d: %s has the field %q twice", key.Line, where, key.Value)
			}
			seen[key.Value] = true
			if err := checkFields(n.Content[i+1], sub, key.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// String lists the names, sorted.
func (f fields) String() string {
	names := make([]string, 0, len(f))
	for name := range f {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Line returns the line of a top-level field, or that of the mapping if it has no such
// field.
func Line(root *yaml.Node, field string) int {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == field {
			return root.Content[i].Line
		}
	}
	return root.Line
}
