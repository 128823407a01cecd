package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parsedDocument is one document of a source.
type parsedDocument struct {
	source string
	// number is the position among the documents of the source that are not empty,
	// from 1.
	number int
	// startsSource is true for the first document of a source.
	startsSource bool
	raw          rawDocument
	// root is the top node; nil if the document holds comments only.
	root *yaml.Node
	// index finds positions in the text; nil until lines is called.
	index *lineIndex
	// duplicates are the keys that its mappings hold twice.
	duplicates []duplicateKey
	// err says why the document cannot be read; nil if it can.
	err error
	// value is the decoded object; nil unless it is a workload, a list or a
	// Namespace.
	value map[string]any
}

// parseSource parses all documents of a source. A document that cannot be parsed
// holds its error, so that all errors are reported in the order of the input.
func parseSource(s Source) ([]*parsedDocument, error) {
	if len(s.Data) > MaxBytes {
		return nil, fmt.Errorf("%s: holds more than %d MiB: split it", s.Name, MaxBytes>>20)
	}
	if problem := encodingError(s.Data); problem != "" {
		return nil, fmt.Errorf("%s: %s", s.Name, problem)
	}
	var documents []*parsedDocument
	number := 0
	for i, raw := range splitDocuments(s.Data) {
		if !isEmptyDocument(raw) {
			number++
		}
		document := &parsedDocument{source: s.Name, number: number, startsSource: i == 0, raw: raw}
		var err error
		if document.root, err = parseDocument(raw); err != nil {
			document.err = document.wrapError("", withNotesHint(raw, err))
		} else if err := document.decodeValue(); err != nil {
			document.err = document.wrapError(document.nodeDisplayName(), err)
		}
		documents = append(documents, document)
	}
	return documents, nil
}

// lines returns the index of the document's lines.
func (d *parsedDocument) lines() lineIndex {
	if d.index == nil {
		x := newLineIndex(d.raw.body)
		x.byteColumns = d.raw.isJSON
		d.index = &x
	}
	return *d.index
}

// isEmptyDocument reports whether a document holds blank lines and comments only.
func isEmptyDocument(d rawDocument) bool {
	for rest := d.body; len(rest) > 0; {
		n := lineLength(rest)
		if !isBlankOrComment(rest[:n]) {
			return false
		}
		rest = rest[n:]
	}
	return true
}

// decodeValue decodes the value of a relevant document. Other documents may be
// malformed.
func (d *parsedDocument) decodeValue() error {
	if !isRelevant(d.root) {
		return nil
	}
	duplicates, err := checkKeys(d.root, nil)
	if err != nil {
		return err
	}
	d.duplicates = duplicates
	raw, err := toJSON(d.raw)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return dec.Decode(&d.value)
}

// isRelevant reports whether a node is a mapping whose kind is a workload, a list of
// workloads, or a Namespace.
func isRelevant(n *yaml.Node) bool {
	if n == nil || n.Kind != yaml.MappingNode {
		return false
	}
	objectType := typeMeta{scalarValue(mappingValue(n, "apiVersion")), scalarValue(mappingValue(n, "kind"))}
	if objectType == (typeMeta{"v1", "Namespace"}) || objectType.isList() {
		return true
	}
	_, ok := objectType.podTemplatePath()
	return ok
}

func scalarValue(n *yaml.Node) string {
	if n = resolveAlias(n); n != nil && n.Kind == yaml.ScalarNode {
		return n.Value
	}
	return ""
}

// nodeDisplayName returns the display name of a document that could be parsed but not
// decoded.
func (d *parsedDocument) nodeDisplayName() string {
	m := mappingValue(d.root, "metadata")
	return strings.TrimSpace(scalarValue(mappingValue(d.root, "kind")) + " " + joinName(scalarValue(mappingValue(m, "namespace")), scalarValue(mappingValue(m, "name"))))
}

// valueAt returns the value at a path of keys through mappings; nil if the path does
// not exist. keys is the path of value itself, for errors.
func valueAt(value map[string]any, path, keys []string) (any, error) {
	var n any = value
	for _, key := range path {
		mapping, ok := n.(map[string]any)
		if !ok {
			return nil, &fieldError{keys, "want a mapping, got " + describeType(n)}
		}
		if n = mapping[key]; n == nil {
			return nil, nil
		}
		keys = append(keys[:len(keys):len(keys)], key)
	}
	return n, nil
}
