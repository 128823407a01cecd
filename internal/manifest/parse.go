package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// parseDocument parses a document and returns its top node. The node is nil if the
// document holds comments only.
func parseDocument(d rawDocument) (*yaml.Node, error) {
	if d.isJSON {
		return parseJSON(d.body)
	}
	return parseYAML(d.body)
}

// parseYAML parses exactly one YAML document and returns its top node.
func parseYAML(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, newLineError(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, newLineError(err)
		}
		return nil, &lineError{text: `more than one document: put "---" at the start of a line between them`}
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, nil
	}
	return doc.Content[0], nil
}

// checkKeys returns an error for each duplicate key in the mappings at and below n,
// because Kubernetes silently drops one of the values, and for each key that is not a
// scalar. firstLine is the line of the source on which the document starts.
func checkKeys(n *yaml.Node, firstLine int) error {
	var errs []error
	if n.Kind == yaml.MappingNode {
		seen := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if resolveAlias(key).Kind != yaml.ScalarNode {
				text := "a key is not a scalar: render the template first"
				errs = append(errs, &lineError{line: key.Line, text: text})
			}
			if key.Kind != yaml.ScalarNode || isMergeKey(key) {
				continue
			}
			if first, twice := seen[key.Value]; twice {
				text := fmt.Sprintf("duplicate key %q, first on line %d: remove one of them", key.Value, firstLine+first-1)
				errs = append(errs, &lineError{line: key.Line, text: text})
				continue
			}
			seen[key.Value] = key.Line
		}
	}
	for _, child := range n.Content {
		errs = append(errs, checkKeys(child, firstLine))
	}
	return errors.Join(errs...)
}

// mappingValue returns the value of a key of a mapping; nil if there is none. It
// resolves aliases.
func mappingValue(n *yaml.Node, key string) *yaml.Node {
	if n = resolveAlias(n); n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	return childNode(n, key)
}

// resolveAlias returns the node that an alias refers to, and any other node as it is.
func resolveAlias(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isMergeKey(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "<<" && (n.Tag == "" || n.Tag == "!" || n.ShortTag() == "!!merge")
}
