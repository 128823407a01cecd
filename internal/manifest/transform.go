package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"gomodules.xyz/jsonpatch/v2"
)

// MaxBytes is the most that one source may hold. It is many times what a
// cluster's manifests come to.
const MaxBytes = 64 << 20

// Source is one file, or what came on standard input.
type Source struct {
	// Name is how messages call it.
	Name string
	Data []byte
}

// Edit is what is to be done with one workload.
type Edit struct {
	// Patch has paths relative to the pod. Nil leaves the workload alone.
	Patch []jsonpatch.Operation
	// Verdict says in a few words what was decided, for the report.
	Verdict string
	// Details say more about the verdict, a line each.
	Details []string
	// Warnings are sentences for the user.
	Warnings []string
	// Err, when set, is why the workload cannot be edited as it should.
	Err error
}

// Editor decides on one workload.
type Editor func(Workload) Edit

// Decision is one line of the report.
type Decision struct {
	// Workload is the workload as "deployment/emissary/edge".
	Workload string
	Verdict  string
	// Details say more about the verdict, a line each.
	Details  []string
	Warnings []string
}

// Document is one document before and after. Before joined with the prefix
// and suffix of each document of a source is that source.
type Document struct {
	// Source is the name of the source, Number counts the documents in it
	// that are not empty, from 1, and Line is that on which it starts.
	Source       string
	Number, Line int
	// Title is kind, namespace and name for a reader: "Deployment
	// emissary/edge".
	Title string
	// Prefix and Suffix are the bytes around the document that belong to no
	// document.
	Prefix, Suffix []byte
	Before, After  []byte
	// JSON is true when the document is written in JSON.
	JSON bool
	// edits are what was done to the lines of Before, empty when that is not
	// known.
	edits []textEdit
}

// Changed is true when an edit was made.
func (d Document) Changed() bool { return !bytes.Equal(d.Before, d.After) }

// Result is what became of the sources.
type Result struct {
	Documents []Document
	Decisions []Decision
}

// Transform shows every workload in the sources to the editor and carries out
// its edits. Workloads without a namespace of their own are in the given one.
// The error joins everything that is wrong with any document; there is no
// result then.
func Transform(sources []Source, namespace string, edit Editor) (Result, error) {
	return transformWith(sources, transformer{namespace: namespace, edit: edit})
}

func transformWith(sources []Source, t transformer) (Result, error) {
	var objects []*object
	var errs []error
	for _, source := range sources {
		read, err := readSource(source)
		objects = append(objects, read...)
		errs = append(errs, err)
	}
	t.namespaces = namespacesIn(objects)
	for _, o := range objects {
		errs = append(errs, t.document(o))
	}
	if err := errors.Join(errs...); err != nil {
		return Result{}, err
	}
	return t.result, nil
}

type transformer struct {
	namespace string
	edit      Editor
	// values decides on documents of Helm values; nil lets them pass.
	values     func(Values) Edit
	namespaces map[string]meta
	result     Result
}

// document edits one document and appends it to the result.
func (t *transformer) document(o *object) error {
	doc := Document{
		Source: o.source, Number: o.number, Line: o.chunk.line, JSON: o.chunk.isJSON,
		Prefix: o.chunk.prefix, Suffix: o.chunk.suffix, Before: o.chunk.body, After: o.chunk.body,
	}
	if o.err != nil {
		return o.err
	}
	if o.value != nil {
		doc.Title = title(kindOf(o.value), t.namespace, o.value)
	}
	patch, err := t.object(o, o.value, kind{}, nil, 0)
	if o.value == nil && t.values != nil {
		doc.Title = "values"
		patch, err = t.valuesDocument(o)
	}
	if err != nil {
		return err
	}
	if len(patch) > 0 {
		if doc.After, doc.edits, err = rewrite(o.chunk, patch); err != nil {
			return o.fail(doc.Title, err)
		}
	}
	t.result.Documents = append(t.result.Documents, doc)
	return nil
}

// maxDepth bounds lists in lists.
const maxDepth = 8

// object decides on an object and, when it is a list, on its items. The patch
// that it returns is relative to the document.
func (t *transformer) object(o *object, value map[string]any, list kind, keys []string, depth int) ([]jsonpatch.Operation, error) {
	k := list.item(kindOf(value))
	if path, ok := k.template(); ok {
		return t.workload(o, value, k, append(keys[:len(keys):len(keys)], path...), path)
	}
	if !k.isList() || depth > maxDepth {
		return nil, nil
	}
	items, ok := value["items"].([]any)
	if !ok && value["items"] != nil {
		return nil, o.fail(k.name, &fieldError{append(keys, "items"), "want a list, got " + typeName(value["items"])})
	}
	var patch []jsonpatch.Operation
	var errs []error
	for i, item := range items {
		inner, ok := item.(map[string]any)
		if !ok {
			continue
		}
		own := append(keys[:len(keys):len(keys)], "items", strconv.Itoa(i))
		ops, err := t.object(o, inner, k, own, depth+1)
		patch, errs = append(patch, ops...), append(errs, err)
	}
	return patch, errors.Join(errs...)
}

// workload decides on one workload. path leads from the object to the pod,
// keys from the document to it.
func (t *transformer) workload(o *object, value map[string]any, k kind, keys, path []string) ([]jsonpatch.Operation, error) {
	name := title(k, t.namespace, value)
	m, err := metaOf(value, keys[:len(keys)-len(path)])
	if err != nil {
		return nil, o.fail(name, err)
	}
	w := Workload{Kind: k.name, Namespace: m.namespace, Name: m.name}
	if w.Namespace == "" {
		w.Namespace = t.namespace
	}
	if ns, ok := t.namespaces[w.Namespace]; ok {
		w.NamespaceLabels, w.NamespaceAnnotations = ns.labels, ns.annotations
	}
	template, err := descend(value, path, keys[:len(keys)-len(path)])
	if err != nil {
		return nil, o.fail(name, err)
	}
	if template == nil {
		t.result.Decisions = append(t.result.Decisions, Decision{Workload: w.String(), Verdict: "unchanged (no pod in it)"})
		return nil, nil
	}
	if w.Pod, err = decodePod(template, keys); err != nil {
		return nil, o.fail(name, err)
	}
	w.Pod.Namespace = w.Namespace
	w.Selected, w.template = selected(value), template
	edit := t.edit(w)
	if edit.Err != nil {
		line := nodeAt(o.root, keys[:len(keys)-len(path)]).Line
		return nil, o.fail(name, atLine(line, edit.Err))
	}
	t.result.Decisions = append(t.result.Decisions, Decision{w.String(), edit.Verdict, edit.Details, edit.Warnings})
	return rebase(edit.Patch, keys, template), nil
}

// atLine gives every error that is joined in err the line.
func atLine(line int, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return &lineError{line: line, text: err.Error()}
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, atLine(line, e))
	}
	return errors.Join(errs...)
}

// rebase makes a pod's patch one of the document that the pod is in. A
// template may lack the metadata that every pod has: it is added where
// something goes into it, and taken away when the patch empties it.
func rebase(patch []jsonpatch.Operation, keys []string, template any) []jsonpatch.Operation {
	if len(patch) == 0 {
		return nil
	}
	prefix := pathOf(keys)
	out := make([]jsonpatch.Operation, 0, len(patch)+1)
	if object, ok := template.(map[string]any); ok && object["metadata"] == nil && touches(patch, "/metadata/") {
		out = append(out, jsonpatch.NewOperation("add", prefix+"/metadata", map[string]any{}))
	}
	for _, op := range patch {
		op.Path = prefix + op.Path
		out = append(out, op)
	}
	if len(keys) > 0 && touches(patch, "/metadata/") && emptied(patch, template) {
		out = append(out, jsonpatch.NewOperation("remove", prefix+"/metadata", nil))
	}
	return out
}

// fail puts file, line, document and workload in front of every error in err.
func (o *object) fail(title string, err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, o.fail(title, e))
		}
		return errors.Join(errs...)
	}
	where := o.source + ":" + strconv.Itoa(o.lineOf(err))
	what := fmt.Sprintf("document %d", o.number)
	if title != "" {
		what += " (" + title + ")"
	}
	return fmt.Errorf("%s: %s: %w", where, what, err)
}
