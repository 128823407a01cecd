package manifest

import (
	"errors"
	"fmt"
	"strconv"

	"gomodules.xyz/jsonpatch/v2"
)

// maxListDepth limits the depth of lists in lists, which kubectl unfolds.
const maxListDepth = 64

// transformObject edits an object or, if it is a list, its items. The paths of the
// returned patch are relative to the document.
func (t *transformer) transformObject(document *parsedDocument, value map[string]any, list typeMeta, keys []string, depth int) ([]jsonpatch.Operation, error) {
	objectType := list.itemType(typeMetaOf(value))
	if path, ok := objectType.podTemplatePath(); ok {
		return t.transformWorkload(document, value, objectType, append(keys[:len(keys):len(keys)], path...), path)
	}
	if !objectType.isList() {
		t.reportLeftAlone(document, nodeAt(document.root, keys))
		return nil, nil
	}
	if depth >= maxListDepth {
		text := fmt.Sprintf("lists are in one another %d deep: at most %d are read; put the objects into one list", depth+listDepth(value), maxListDepth)
		return nil, document.wrapError(objectType.kind, &lineError{line: nodeAt(document.root, keys).Line, text: text})
	}
	t.warnOfUnknownFields(document, objectType, value, keys)
	items, ok := value["items"].([]any)
	if !ok && value["items"] != nil {
		return nil, document.wrapError(objectType.kind, &fieldError{append(keys, "items"), "want a list, got " + describeType(value["items"])})
	}
	var patch []jsonpatch.Operation
	var errs []error
	for i, item := range items {
		object, ok := item.(map[string]any)
		if !ok {
			continue
		}
		itemKeys := append(keys[:len(keys):len(keys)], "items", strconv.Itoa(i))
		ops, err := t.transformObject(document, object, objectType, itemKeys, depth+1)
		patch, errs = append(patch, ops...), append(errs, err)
	}
	return patch, errors.Join(errs...)
}

// listDepth returns how many lists are in one another.
func listDepth(value map[string]any) int {
	deepest := 0
	items, _ := value["items"].([]any)
	for _, item := range items {
		if object, ok := item.(map[string]any); ok {
			deepest = max(deepest, listDepth(object))
		}
	}
	if typeMetaOf(value).isList() {
		deepest++
	}
	return deepest
}
