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
	// value is nil in a document that holds no workload and no Namespace.
	value map[string]any
}

// readSource reads all documents of a source. Every document that cannot be
// read has its error.
func readSource(s Source) ([]*object, error) {
	if len(s.Data) > MaxBytes {
		return nil, fmt.Errorf("%s: holds more than %d MiB: split it", s.Name, MaxBytes>>20)
	}
	if wrong := notText(s.Data); wrong != "" {
		return nil, fmt.Errorf("%s: %s", s.Name, wrong)
	}
	var objects []*object
	var errs []error
	number := 0
	for _, c := range split(s.Data) {
		o := &object{source: s.Name, number: number + 1, chunk: c}
		root, err := parse(c)
		if err != nil {
			number++
			errs = append(errs, o.fail("", err))
			continue
		}
		if o.root = root; root != nil && !isEmpty(c) {
			number++
		}
		if err := o.read(); err != nil {
			errs = append(errs, o.fail(o.rawTitle(), err))
		}
		objects = append(objects, o)
	}
	return objects, errors.Join(errs...)
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
	if err := uniqueKeys(o.root); err != nil {
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

// lineOf is the line in the source that an error is about, zero when it names
// none.
func (o *object) lineOf(err error) int {
	var at *lineError
	var field *fieldError
	switch {
	case errors.As(err, &at) && at.line > 0:
		return o.chunk.line + at.line - 1
	case errors.As(err, &field) && o.root != nil:
		if n := nodeAt(o.root, field.keys); n.Line > 0 {
			return o.chunk.line + n.Line - 1
		}
	}
	return 0
}

// meta is what matters of an object's own metadata.
type meta struct {
	namespace, name     string
	labels, annotations map[string]string
}

// metaOf reads an object's metadata. keys lead from the document to the object.
func metaOf(value map[string]any, keys []string) (meta, error) {
	var m meta
	var errs []error
	keys = append(keys[:len(keys):len(keys)], "metadata")
	if value["metadata"] == nil {
		return m, nil
	}
	own, ok := value["metadata"].(map[string]any)
	if !ok {
		return m, &fieldError{keys, "want a mapping, got " + typeName(value["metadata"])}
	}
	text := func(key string, into *string) {
		switch v := own[key].(type) {
		case nil:
		case string:
			*into = v
		default:
			errs = append(errs, &fieldError{append(keys[:len(keys):len(keys)], key), fmt.Sprintf("want a string, got %s %v: quote it", typeName(v), v)})
		}
	}
	generated := ""
	text("namespace", &m.namespace)
	text("name", &m.name)
	text("generateName", &generated)
	if m.name == "" && generated != "" {
		m.name = generated + "*"
	}
	m.labels, m.annotations = texts(own["labels"]), texts(own["annotations"])
	return m, errors.Join(errs...)
}

// texts keeps the strings of a mapping.
func texts(value any) map[string]string {
	out := map[string]string{}
	from, _ := value.(map[string]any)
	for key, v := range from {
		if s, ok := v.(string); ok {
			out[key] = s
		}
	}
	return out
}

func kindOf(value map[string]any) kind {
	apiVersion, _ := value["apiVersion"].(string)
	name, _ := value["kind"].(string)
	return kind{apiVersion, name}
}

// title names an object for a reader: "Deployment emissary/edge".
func title(k kind, namespace string, value map[string]any) string {
	m, _ := metaOf(value, nil)
	if _, ok := k.template(); ok && m.namespace == "" {
		m.namespace = namespace
	}
	return strings.TrimSpace(k.name + " " + joinName(m.namespace, m.name))
}

// namespacesIn collects the Namespace objects of the input by name.
func namespacesIn(objects []*object) map[string]meta {
	found := map[string]meta{}
	var visit func(map[string]any, kind, int)
	visit = func(value map[string]any, list kind, depth int) {
		k := list.item(kindOf(value))
		if k == (kind{"v1", "Namespace"}) {
			if m, err := metaOf(value, nil); err == nil {
				found[m.name] = m
			}
		}
		items, _ := value["items"].([]any)
		if !k.isList() || depth > maxDepth {
			return
		}
		for _, item := range items {
			if inner, ok := item.(map[string]any); ok {
				visit(inner, k, depth+1)
			}
		}
	}
	for _, o := range objects {
		visit(o.value, kind{}, 0)
	}
	return found
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
