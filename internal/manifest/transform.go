package manifest

import (
	"bytes"
	"errors"
	"fmt"

	udiff "github.com/aymanbagabas/go-udiff"
	"gomodules.xyz/jsonpatch/v2"
)

// MaxBytes is the maximum size of one source in bytes, many times the size of all
// manifests of a cluster.
const MaxBytes = 64 << 20

// Source is the content of one file or of standard input.
type Source struct {
	// Name identifies the source in messages.
	Name string
	// Data is the content.
	Data []byte
}

// Edit is the edit of one workload, with its report.
type Edit struct {
	// Patch has paths relative to the pod. If it is nil, the workload stays as it is.
	Patch []jsonpatch.Operation
	// Spellings are the texts of fields that are null or empty after the patch, by their
	// JSON pointers from the pod. A field without one is spelled as usual.
	Spellings map[string]string
	// Summary is the decision in a few words for the report.
	Summary string
	// Details explain the summary, one line each.
	Details []string
	// Warnings are sentences for the user.
	Warnings []string
	// NamespaceWarnings are sentences about the workload's namespace.
	NamespaceWarnings []string
	// Err says why the workload cannot be edited; nil if it can.
	Err error
}

// Editor decides how to edit one workload.
type Editor func(Workload) Edit

// Decision is the entry of one workload in the report.
type Decision struct {
	// Workload names the workload: "deployment/emissary/edge".
	Workload string
	// Summary is the decision in a few words.
	Summary string
	// Details explain the summary, one line each.
	Details []string
	// Warnings are sentences for the user.
	Warnings []string
}

// Document is one document before and after its edit. The Prefix, Before and Suffix of
// all documents of a source, in order, are the source.
type Document struct {
	// Source is the name of the source. Number is the position among the documents
	// of the source that are not empty, from 1. Line is the line on which the
	// document starts, from 1.
	Source       string
	Number, Line int
	// DisplayName is the kind, namespace and name for messages: "Deployment
	// emissary/edge".
	DisplayName string
	// Prefix and Suffix are the bytes around the document, such as markers.
	Prefix, Suffix []byte
	// Before and After are the text of the document before and after the edit.
	Before, After []byte
	// JSON is true if the document is written in JSON.
	JSON bool
	// startsSource is true for the first document of a source.
	startsSource bool
	// rewritten is true if the document was encoded again as a whole.
	rewritten bool
	// edits turn Before into After.
	edits []udiff.Edit
}

// Changed reports whether the document was edited.
func (d Document) Changed() bool { return !bytes.Equal(d.Before, d.After) }

// Result holds the edited documents of all sources and the decisions on their
// workloads.
type Result struct {
	// Documents are in the order of the input.
	Documents []Document
	// Decisions has one entry per workload and section of Helm values, and one for each
	// object that is left alone although it can hold an edge.
	Decisions []Decision
	// Warnings are about other objects.
	Warnings []Warning
}

// Warning is a sentence for the user about an object.
type Warning struct{ Object, Text string }

// Transform calls the editor for every workload in the sources and applies its edits.
// Workloads that name no namespace are in the given one. The error joins the errors of
// all documents; the result is empty then.
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
	// editValues edits documents of Helm values. If it is nil, they stay as they are.
	editValues func(Values) Edit
	namespaces map[string]objectMeta
	// spellings are those of the edits of the current document, by their JSON pointers.
	spellings map[string]string
	result    Result
}

// transformDocument edits one document and appends it to the result.
func (t *transformer) transformDocument(document *parsedDocument) error {
	result := Document{
		Source: document.source, Number: document.number, Line: document.raw.line, JSON: document.raw.isJSON,
		startsSource: document.startsSource,
		Prefix:       document.raw.prefix, Suffix: document.raw.suffix, Before: document.raw.body, After: document.raw.body,
	}
	if document.err != nil {
		return document.err
	}
	t.spellings = map[string]string{}
	patch, err := t.transformRoot(document, &result.DisplayName)
	if err != nil {
		return err
	}
	for _, k := range document.duplicates {
		if !k.reported {
			t.result.Warnings = append(t.result.Warnings, Warning{result.DisplayName, document.describeDuplicate(k)})
		}
	}
	if len(patch) > 0 {
		var inPlace bool
		if result.edits, inPlace, err = rewriteDocument(document.raw, change{patch, t.spellings}); err == nil {
			result.rewritten = !inPlace
			result.After, err = udiff.ApplyBytes(document.raw.body, result.edits)
		}
		if err != nil {
			return document.wrapError(result.DisplayName, err)
		}
	}
	if text := document.describeLoss(result, patch); text != "" {
		t.result.Warnings = append(t.result.Warnings, Warning{result.DisplayName, text})
	}
	t.result.Documents = append(t.result.Documents, result)
	return nil
}

// transformRoot edits the object, the list or the Helm values in a document.
func (t *transformer) transformRoot(document *parsedDocument, name *string) ([]jsonpatch.Operation, error) {
	if document.value != nil {
		*name = displayName(typeMetaOf(document.value), t.namespace, document.value)
		return t.transformObject(document, document.value, typeMeta{}, nil, 0)
	}
	if t.editValues != nil {
		*name = "values"
		if patch, found, err := t.transformValues(document); found || err != nil {
			return patch, err
		}
	}
	t.reportLeftAlone(document, document.root)
	return nil, nil
}

// transformWorkload edits one workload. path is the path from the object to the pod,
// keys the path from the document to the pod.
func (t *transformer) transformWorkload(document *parsedDocument, value map[string]any, objectType typeMeta, keys, path []string) ([]jsonpatch.Operation, error) {
	name, objectKeys := displayName(objectType, t.namespace, value), keys[:len(keys)-len(path)]
	metadata, err := objectMetaOf(value, objectKeys)
	w := Workload{Kind: objectType.kind, Namespace: metadata.namespace, Name: metadata.name}
	if w.Namespace == "" {
		w.Namespace = t.namespace
	}
	if key := patchDirective(value); key != "" {
		t.decide(w.String(), fmt.Sprintf("unchanged (a strategic merge patch with %s, which is left alone)", key))
		return nil, nil
	}
	if err != nil {
		return nil, document.wrapError(name, err)
	}
	if ns, ok := t.namespaces[w.Namespace]; ok {
		w.NamespaceLabels, w.NamespaceAnnotations = ns.labels, ns.annotations
	}
	template, err := valueAt(value, path, objectKeys)
	if err != nil {
		return nil, document.wrapError(name, err)
	}
	if template == nil {
		t.decide(w.String(), "unchanged (no pod template)")
		return nil, nil
	}
	if w.Pod, err = decodePod(template, keys); err != nil {
		return nil, document.wrapError(name, err)
	}
	w.Pod.Namespace = w.Namespace
	w.SelectorKeys, w.template = selectorKeys(value), template
	w.emptyFields = func() map[string]string { return document.emptyFields(keys) }
	edit := t.editWorkload(w)
	if edit.Err != nil {
		line := nodeAt(document.root, objectKeys).Line
		return nil, document.wrapError(name, withLine(line, edit.Err))
	}
	warnings, err := document.checkDuplicates(objectKeys, len(edit.Patch) > 0)
	if err != nil {
		return nil, document.wrapError(name, err)
	}
	warnings = append(warnings, document.unknownFields(objectType, value, objectKeys)...)
	for _, text := range edit.NamespaceWarnings {
		t.result.Warnings = append(t.result.Warnings, Warning{"namespace/" + w.Namespace, text})
	}
	t.result.Decisions = append(t.result.Decisions, Decision{w.String(), edit.Summary, edit.Details, append(edit.Warnings, warnings...)})
	for path, text := range edit.Spellings {
		t.spellings[jsonPointer(keys)+path] = text
	}
	return rebasePatch(edit, keys, template), nil
}

func (t *transformer) decide(object, summary string) {
	t.result.Decisions = append(t.result.Decisions, Decision{Workload: object, Summary: summary})
}
