// Package strict decodes the YAML that users write for Isthmus. An unknown field, or
// a field that occurs twice, is an error that names its line. The JSON decoders behind
// most YAML libraries do not know the line.
package strict

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// Decode decodes a mapping into v, which is a pointer. An error begins with the line,
// so that the caller can prefix the file's name and a colon. The error calls the
// mapping by the given description, such as "a profile".
func Decode(root *yaml.Node, v any, description string) error {
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%d: want a mapping with the fields of %s", root.Line, description)
	}
	if err := checkFields(root, fieldsOf(reflect.TypeOf(v)), description); err != nil {
		return err
	}
	data, err := yaml.Marshal(root)
	if err != nil {
		return fmt.Errorf("%d: %w", root.Line, err)
	}
	if err := sigsyaml.UnmarshalStrict(data, v); err != nil {
		return fmt.Errorf("%d: %s", root.Line, Message(err))
	}
	return nil
}

// Message returns the text of an error of the YAML libraries without the prefixes
// that name the library.
func Message(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "error unmarshaling JSON: while decoding JSON: ")
}
