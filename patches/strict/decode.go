// Package strict decodes the YAML that users write for Isthmus. A field that is
// not known, or is there twice, is an error that names its line, which the JSON
// decoders behind most YAML libraries cannot tell.
package strict

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// Decode decodes a mapping into what v points to. An error begins with the line,
// so that the caller can put the file's name and a colon before it; what names
// the mapping in a sentence.
func Decode(root *yaml.Node, v any, what string) error {
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%d: want a mapping with the fields of %s", root.Line, what)
	}
	if err := checkFields(root, fieldsOf(reflect.TypeOf(v)), what); err != nil {
		return err
	}
	data, err := yaml.Marshal(root)
	if err != nil {
		return fmt.Errorf("%d: %w", root.Line, err)
	}
	if err := sigsyaml.UnmarshalStrict(data, v); err != nil {
		return fmt.Errorf("%d: %s", root.Line, Cut(err))
	}
	return nil
}

// Cut leaves out of an error what the YAML libraries say of themselves.
func Cut(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "error unmarshaling JSON: while decoding JSON: ")
}
