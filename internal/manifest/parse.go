package manifest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"

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

// duplicateKey is a key that a mapping holds twice. Kubernetes uses the last value.
type duplicateKey struct {
	// keys is the path of the mapping.
	keys []string
	key  string
	// first and line are the lines of the two, as the parser counts them.
	first, line int
	// same is true if both values are the same.
	same bool
	// reported is true if a warning about a workload names it.
	reported bool
}

// checkKeys returns the duplicate keys in the mappings at and below n, and an error for each
// key that is not a scalar.
func checkKeys(n *yaml.Node, keys []string) ([]duplicateKey, error) {
	var found []duplicateKey
	var errs []error
	below := func(child *yaml.Node, key string) {
		duplicates, err := checkKeys(child, append(keys[:len(keys):len(keys)], key))
		found, errs = append(found, duplicates...), append(errs, err)
	}
	if n.Kind == yaml.SequenceNode {
		for i, child := range n.Content {
			below(child, strconv.Itoa(i))
		}
	}
	if n.Kind == yaml.MappingNode {
		seen := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if resolveAlias(key).Kind != yaml.ScalarNode {
				errs = append(errs, &lineError{line: key.Line, text: "a key is not a scalar: render the template first"})
			}
			below(value, key.Value)
			if key.Kind != yaml.ScalarNode || isMergeKey(key) {
				continue
			}
			if first, twice := seen[key.Value]; twice {
				found = append(found, duplicateKey{
					keys: keys, key: key.Value, first: n.Content[first].Line, line: key.Line,
					same: sameValue(n.Content[first+1], value),
				})
			}
			seen[key.Value] = i
		}
	}
	return found, errors.Join(errs...)
}

// sameValue reports whether two nodes hold the same value. In doubt it returns false.
func sameValue(a, b *yaml.Node) bool {
	if a.Kind == yaml.AliasNode || b.Kind == yaml.AliasNode {
		return resolveAlias(a) == resolveAlias(b)
	}
	return a.Kind == b.Kind && a.ShortTag() == b.ShortTag() && a.Value == b.Value && slices.EqualFunc(a.Content, b.Content, sameValue)
}

// concerns reports whether a duplicate key is in the object at a path, or around it.
func (k duplicateKey) concerns(object []string) bool {
	return isBelow(k.keys, object) || isBelow(object, append(k.keys[:len(k.keys):len(k.keys)], k.key))
}

// isBelow reports whether a path is at or below another one.
func isBelow(path, parent []string) bool {
	return len(path) >= len(parent) && slices.Equal(path[:len(parent)], parent)
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
