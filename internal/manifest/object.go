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

// object is one document as it was read.
type object struct {
	source string
	// number counts the documents of a source that are not empty.
	number int
	chunk  chunk
	// root is nil in a document with nothing but comments in it.
	root *yaml.Node
	// err is why the document cannot be read.
	err error
	// value is nil in a document that holds no workload and no Namespace.
	value map[string]any
}

// readSource reads all documents of a source. A document that cannot be read
// keeps its error, so that all errors come in the order of the input.
func readSource(s Source) ([]*object, error) {
	if len(s.Data) > MaxBytes {
		return nil, fmt.Errorf("%s: holds more than %d MiB: split it", s.Name, MaxBytes>>20)
	}
	if wrong := notText(s.Data); wrong != "" {
		return nil, fmt.Errorf("%s: %s", s.Name, wrong)
	}
	var objects []*object
	number := 0
	for _, c := range split(s.Data) {
		if !isEmpty(c) {
			number++
		}
		o := &object{source: s.Name, number: number, chunk: c}
		var err error
		if o.root, err = parse(c); err != nil {
			o.err = o.fail("", err)
		} else if err := o.read(); err != nil {
			o.err = o.fail(o.rawTitle(), err)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// isEmpty is true for a document with nothing but blanks and comments in it.
func isEmpty(c chunk) bool {
	for rest := c.body; len(rest) > 0; {
		n := lineLength(rest)
		if !isBlankOrComment(rest[:n]) {
			return false
		}
		rest = rest[n:]
	}
	return true
}

// read takes the value of a document that may matter. What else there is may
// be as odd as it likes.
func (o *object) read() error {
	if !mayMatter(o.root) {
		return nil
	}
	if err := checkKeys(o.root, o.chunk.line); err != nil {
		return err
	}
	raw, err := toJSON(o.chunk)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return dec.Decode(&o.value)
}

// mayMatter is true for a mapping whose kind is that of a workload, of a list
// of them, or of a Namespace.
func mayMatter(n *yaml.Node) bool {
	if n == nil || n.Kind != yaml.MappingNode {
		return false
	}
	k := kind{scalar(lookup(n, "apiVersion")), scalar(lookup(n, "kind"))}
	if k == (kind{"v1", "Namespace"}) || k.isList() {
		return true
	}
	_, ok := k.template()
	return ok
}

func scalar(n *yaml.Node) string {
	if n = follow(n); n != nil && n.Kind == yaml.ScalarNode {
		return n.Value
	}
	return ""
}

// rawTitle names a document that could not be read any further.
func (o *object) rawTitle() string {
	m := lookup(o.root, "metadata")
	return strings.TrimSpace(scalar(lookup(o.root, "kind")) + " " + joinName(scalar(lookup(m, "namespace")), scalar(lookup(m, "name"))))
}

func joinName(namespace, name string) string {
	if namespace == "" || name == "" {
		return name
	}
	return namespace + "/" + name
}

// lineOf is the line in the source that an error is about, that of the
// document where the error names none.
func (o *object) lineOf(err error) int {
	line := 1
	var at *lineError
	var field *fieldError
	switch {
	case errors.As(err, &at) && at.line > 0:
		line = at.line
	case errors.As(err, &field) && o.root != nil:
		line = max(1, nodeAt(o.root, field.keys).Line)
	}
	return o.chunk.line + line - 1
}

// descend follows keys through mappings, nil where they end before.
func descend(value map[string]any, path, keys []string) (any, error) {
	var n any = value
	for _, key := range path {
		object, ok := n.(map[string]any)
		if !ok {
			return nil, &fieldError{keys, "want a mapping, got " + typeName(n)}
		}
		if n = object[key]; n == nil {
			return nil, nil
		}
		keys = append(keys[:len(keys):len(keys)], key)
	}
	return n, nil
}

// emptied is true when a patch leaves nothing of a template's metadata. What
// added the metadata was then the patch that this one takes back.
func emptied(patch []operations.Operation, template any) bool {
	raw, err := json.Marshal(template)
	if err != nil {
		return false
	}
	if raw, err = patched(raw, patch); err != nil {
		return false
	}
	var after struct{ Metadata map[string]any }
	return json.Unmarshal(raw, &after) == nil && after.Metadata != nil && len(after.Metadata) == 0
}

// touches is true when a patch changes something below a path.
func touches(patch []operations.Operation, below string) bool {
	for _, op := range patch {
		if strings.HasPrefix(op.Path, below) {
			return true
		}
	}
	return false
}

// pathOf writes keys as a JSON pointer.
func pathOf(keys []string) string {
	var b strings.Builder
	for _, key := range keys {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
	}
	return b.String()
}
