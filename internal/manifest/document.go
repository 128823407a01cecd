package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	operations "gomodules.xyz/jsonpatch/v2"
)

// parsedDocument is one document as it was read.
type parsedDocument struct {
	source string
	// number counts the documents of a source that are not empty.
	number int
	raw    rawDocument
	// root is nil in a document with nothing but comments in it.
	root *yaml.Node
	// err is why the document cannot be read.
	err error
	// value is nil in a document that holds no workload and no Namespace.
	value map[string]any
}

// parseSource reads all documents of a source. A document that cannot be read
// keeps its error, so that all errors come in the order of the input.
func parseSource(s Source) ([]*parsedDocument, error) {
	if len(s.Data) > MaxBytes {
		return nil, fmt.Errorf("%s: holds more than %d MiB: split it", s.Name, MaxBytes>>20)
	}
	if problem := encodingError(s.Data); problem != "" {
		return nil, fmt.Errorf("%s: %s", s.Name, problem)
	}
	var documents []*parsedDocument
	number := 0
	for _, raw := range splitDocuments(s.Data) {
		if !isEmptyDocument(raw) {
			number++
		}
		document := &parsedDocument{source: s.Name, number: number, raw: raw}
		var err error
		if document.root, err = parseDocument(raw); err != nil {
			document.err = document.wrapError("", err)
		} else if err := document.decodeValue(); err != nil {
			document.err = document.wrapError(document.nodeDisplayName(), err)
		}
		documents = append(documents, document)
	}
	return documents, nil
}

// isEmptyDocument is true for a document with nothing but blanks and comments in it.
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

// decodeValue takes the value of a document that may matter. What else there is may
// be as odd as it likes.
func (d *parsedDocument) decodeValue() error {
	if !isRelevant(d.root) {
		return nil
	}
	if err := checkKeys(d.root, d.raw.line); err != nil {
		return err
	}
	raw, err := toJSON(d.raw)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return dec.Decode(&d.value)
}

// isRelevant is true for a mapping whose kind is that of a workload, of a list
// of them, or of a Namespace.
func isRelevant(n *yaml.Node) bool {
	if n == nil || n.Kind != yaml.MappingNode {
		return false
	}
	meta := typeMeta{scalarValue(mappingValue(n, "apiVersion")), scalarValue(mappingValue(n, "kind"))}
	if meta == (typeMeta{"v1", "Namespace"}) || meta.isList() {
		return true
	}
	_, ok := meta.podTemplatePath()
	return ok
}

func scalarValue(n *yaml.Node) string {
	if n = resolveAlias(n); n != nil && n.Kind == yaml.ScalarNode {
		return n.Value
	}
	return ""
}

// nodeDisplayName names a document that could not be read any further.
func (d *parsedDocument) nodeDisplayName() string {
	m := mappingValue(d.root, "metadata")
	return strings.TrimSpace(scalarValue(mappingValue(d.root, "kind")) + " " + joinName(scalarValue(mappingValue(m, "namespace")), scalarValue(mappingValue(m, "name"))))
}

func joinName(namespace, name string) string {
	if namespace == "" || name == "" {
		return name
	}
	return namespace + "/" + name
}

// lineOf is the line in the source that an error is about, that of the
// document where the error names none.
func (d *parsedDocument) lineOf(err error) int {
	line := 1
	var lineErr *lineError
	var fieldErr *fieldError
	switch {
	case errors.As(err, &lineErr) && lineErr.line > 0:
		line = lineErr.line
	case errors.As(err, &fieldErr) && d.root != nil:
		line = max(1, nodeAt(d.root, fieldErr.keys).Line)
	}
	return d.raw.line + line - 1
}

// valueAt follows keys through mappings, nil where they end before.
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

// emptiesMetadata is true when a patch leaves nothing of a template's metadata. What
// added the metadata was then the patch that this one takes back.
func emptiesMetadata(patch []operations.Operation, template any) bool {
	raw, err := json.Marshal(template)
	if err != nil {
		return false
	}
	if raw, err = patchJSON(raw, patch); err != nil {
		return false
	}
	var after struct{ Metadata map[string]any }
	return json.Unmarshal(raw, &after) == nil && after.Metadata != nil && len(after.Metadata) == 0
}

// changesBelow is true when a patch changes something below a path.
func changesBelow(patch []operations.Operation, below string) bool {
	for _, op := range patch {
		if strings.HasPrefix(op.Path, below) {
			return true
		}
	}
	return false
}

// jsonPointer writes keys as a JSON pointer.
func jsonPointer(keys []string) string {
	var b strings.Builder
	for _, key := range keys {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
	}
	return b.String()
}
