package manifest

import (
	"encoding/json"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
)

// rebasePatch converts the patch of a pod into a patch of the document that holds the
// pod. A template can lack the metadata that every pod has: the patch adds it if it
// adds a field to it, and removes it if it removes the last field, unless the metadata was
// there and empty before.
func rebasePatch(edit Edit, keys []string, template any) []jsonpatch.Operation {
	patch := edit.Patch
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
	if changesBelow(patch, "/metadata/") && emptiesMetadata(patch, template) {
		switch text, spelled := edit.Spellings["/metadata"]; {
		case !spelled:
			out = append(out, jsonpatch.NewOperation("remove", prefix+"/metadata", nil))
		case !isCollection(text):
			out = append(out, jsonpatch.NewOperation("replace", prefix+"/metadata", nil))
		}
	}
	return out
}

// emptiesMetadata reports whether a patch removes the last field of a template's
// metadata. The patch that this one reverts has then added the metadata.
func emptiesMetadata(patch []jsonpatch.Operation, template any) bool {
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

// changesBelow reports whether a patch has an operation below a path.
func changesBelow(patch []jsonpatch.Operation, below string) bool {
	for _, op := range patch {
		if strings.HasPrefix(op.Path, below) {
			return true
		}
	}
	return false
}
