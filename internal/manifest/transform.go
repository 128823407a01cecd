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
	// DisplayName is kind, namespace and name for a reader: "Deployment
	// emissary/edge".
	DisplayName string
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
	return transformWith(sources, transformer{namespace: namespace, editWorkload: edit})
}

func transformWith(sources []Source, t transformer) (Result, error) {
	var documents []*parsedDocument
	var errs []error
	for _, source := range sources {
		read, err := parseSource(source)
		documents = append(documents, read...)
		errs = append(errs, err)
	}
	t.namespaces = namespacesIn(documents)
	for _, document := range documents {
		errs = append(errs, t.transformDocument(document))
	}
	if err := errors.Join(errs...); err != nil {
		return Result{}, err
	}
	return t.result, nil
}

type transformer struct {
	namespace    string
	editWorkload Editor
	// editValues decides on documents of Helm values; nil lets them pass.
	editValues func(Values) Edit
	namespaces map[string]objectMeta
	result     Result
}

// transformDocument edits one document and appends it to the result.
func (t *transformer) transformDocument(document *parsedDocument) error {
	result := Document{
		Source: document.source, Number: document.number, Line: document.raw.line, JSON: document.raw.isJSON,
		Prefix: document.raw.prefix, Suffix: document.raw.suffix, Before: document.raw.body, After: document.raw.body,
	}
	if document.err != nil {
		return document.err
	}
	if document.value != nil {
		result.DisplayName = displayName(typeMetaOf(document.value), t.namespace, document.value)
	}
	patch, err := t.transformObject(document, document.value, typeMeta{}, nil, 0)
	if document.value == nil && t.editValues != nil {
		result.DisplayName = "values"
		patch, err = t.transformValues(document)
	}
	if err != nil {
		return err
	}
	if len(patch) > 0 {
		if result.After, result.edits, err = rewriteDocument(document.raw, patch); err != nil {
			return document.wrapError(result.DisplayName, err)
		}
	}
	t.result.Documents = append(t.result.Documents, result)
	return nil
}

// maxDepth bounds lists in lists.
const maxDepth = 8

// transformObject decides on an object and, when it is a list, on its items. The patch
// that it returns is relative to the document.
func (t *transformer) transformObject(document *parsedDocument, value map[string]any, list typeMeta, keys []string, depth int) ([]jsonpatch.Operation, error) {
	meta := list.itemType(typeMetaOf(value))
	if path, ok := meta.podTemplatePath(); ok {
		return t.transformWorkload(document, value, meta, append(keys[:len(keys):len(keys)], path...), path)
	}
	if !meta.isList() || depth > maxDepth {
		return nil, nil
	}
	items, ok := value["items"].([]any)
	if !ok && value["items"] != nil {
		return nil, document.wrapError(meta.kind, &fieldError{append(keys, "items"), "want a list, got " + describeType(value["items"])})
	}
	var patch []jsonpatch.Operation
	var errs []error
	for i, item := range items {
		object, ok := item.(map[string]any)
		if !ok {
			continue
		}
		itemKeys := append(keys[:len(keys):len(keys)], "items", strconv.Itoa(i))
		ops, err := t.transformObject(document, object, meta, itemKeys, depth+1)
		patch, errs = append(patch, ops...), append(errs, err)
	}
	return patch, errors.Join(errs...)
}

// transformWorkload decides on one workload. path leads from the object to the pod,
// keys from the document to it.
func (t *transformer) transformWorkload(document *parsedDocument, value map[string]any, meta typeMeta, keys, path []string) ([]jsonpatch.Operation, error) {
	name := displayName(meta, t.namespace, value)
	m, err := objectMetaOf(value, keys[:len(keys)-len(path)])
	if err != nil {
		return nil, document.wrapError(name, err)
	}
	w := Workload{Kind: meta.kind, Namespace: m.namespace, Name: m.name}
	if w.Namespace == "" {
		w.Namespace = t.namespace
	}
	if ns, ok := t.namespaces[w.Namespace]; ok {
		w.NamespaceLabels, w.NamespaceAnnotations = ns.labels, ns.annotations
	}
	template, err := valueAt(value, path, keys[:len(keys)-len(path)])
	if err != nil {
		return nil, document.wrapError(name, err)
	}
	if template == nil {
		t.result.Decisions = append(t.result.Decisions, Decision{Workload: w.String(), Verdict: "unchanged (no pod in it)"})
		return nil, nil
	}
	if w.Pod, err = decodePod(template, keys); err != nil {
		return nil, document.wrapError(name, err)
	}
	w.Pod.Namespace = w.Namespace
	w.SelectorKeys, w.template = selectorKeys(value), template
	edit := t.editWorkload(w)
	if edit.Err != nil {
		line := nodeAt(document.root, keys[:len(keys)-len(path)]).Line
		return nil, document.wrapError(name, withLine(line, edit.Err))
	}
	t.result.Decisions = append(t.result.Decisions, Decision{w.String(), edit.Verdict, edit.Details, edit.Warnings})
	return rebasePatch(edit.Patch, keys, template), nil
}

// withLine gives every error that is joined in err the line.
func withLine(line int, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return &lineError{line: line, text: err.Error()}
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, withLine(line, e))
	}
	return errors.Join(errs...)
}

// rebasePatch makes a pod's patch one of the document that the pod is in. A
// template may lack the metadata that every pod has: it is added where
// something goes into it, and taken away when the patch empties it.
func rebasePatch(patch []jsonpatch.Operation, keys []string, template any) []jsonpatch.Operation {
	if len(patch) == 0 {
		return nil
	}
	prefix := jsonPointer(keys)
	out := make([]jsonpatch.Operation, 0, len(patch)+1)
	if mapping, ok := template.(map[string]any); ok && mapping["metadata"] == nil && changesBelow(patch, "/metadata/") {
		out = append(out, jsonpatch.NewOperation("add", prefix+"/metadata", map[string]any{}))
	}
	for _, op := range patch {
		op.Path = prefix + op.Path
		out = append(out, op)
	}
	if len(keys) > 0 && changesBelow(patch, "/metadata/") && emptiesMetadata(patch, template) {
		out = append(out, jsonpatch.NewOperation("remove", prefix+"/metadata", nil))
	}
	return out
}

// wrapError puts file, line, document and workload in front of every error in err.
func (d *parsedDocument) wrapError(name string, err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, d.wrapError(name, e))
		}
		return errors.Join(errs...)
	}
	position := d.source + ":" + strconv.Itoa(d.lineOf(err))
	document := fmt.Sprintf("document %d", d.number)
	if name != "" {
		document += " (" + name + ")"
	}
	return fmt.Errorf("%s: %s: %w", position, document, err)
}
