package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	yamlv3 "go.yaml.in/yaml/v3"
	operations "gomodules.xyz/jsonpatch/v2"
	"sigs.k8s.io/yaml"
)

// rewriteDocument applies a patch to the text of one document. It tries three ways to
// write the result: the first preserves most of the layout, the last none. It accepts
// a result only if Kubernetes' own YAML library reads it as the patched object.
func rewriteDocument(d rawDocument, patch []operations.Operation) ([]byte, []textEdit, error) {
	before, err := toJSON(d)
	if err != nil {
		return nil, nil, err
	}
	want, err := patchJSON(before, patch)
	if err != nil {
		return nil, nil, err
	}
	isPatched := func(text []byte) bool {
		got, err := toJSON(rawDocument{body: text, isJSON: d.isJSON})
		return err == nil && equalJSON(got, want)
	}
	if text, edits, err := spliceDocument(d, patch); err == nil && text != nil && isPatched(text) {
		return text, edits, nil
	}
	if text, err := reencodeDocument(d, patch); err == nil && isPatched(text) {
		return text, nil, nil
	}
	text := want
	if !d.isJSON {
		if text, err = yaml.JSONToYAML(want); err != nil {
			return nil, nil, err
		}
	}
	if !isPatched(text) {
		return nil, nil, errors.New("the edit cannot be written without a change in the document's meaning")
	}
	return text, nil, nil
}

// toJSON converts a document to JSON as Kubernetes does.
func toJSON(d rawDocument) ([]byte, error) {
	if d.isJSON {
		return d.body, nil
	}
	raw, err := yaml.YAMLToJSON(d.body)
	if err != nil {
		return nil, newLineError(errors.New(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")))
	}
	return raw, nil
}

// patchJSON applies a patch to a document in JSON.
func patchJSON(before []byte, patch []operations.Operation) ([]byte, error) {
	raw, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	decoded, err := jsonpatch.DecodePatch(raw)
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	after, err := decoded.Apply(before)
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	return after, nil
}

// equalJSON reports whether two JSON texts have equal values.
func equalJSON(a, b []byte) bool {
	var values [2]any
	for i, raw := range [][]byte{a, b} {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(&values[i]); err != nil {
			return false
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

// spliceDocument applies a patch and changes only the lines that it affects. The text
// is nil for JSON, and if the layout does not allow the edit.
func spliceDocument(d rawDocument, patch []operations.Operation) ([]byte, []textEdit, error) {
	if d.isJSON {
		return nil, nil, nil
	}
	before, err := parseYAML(d.body)
	if err != nil {
		return nil, nil, err
	}
	after, err := applyPatch(d, patch)
	if err != nil {
		return nil, nil, err
	}
	text, edits := spliceText(d.body, before, after, detectLayout(d.body, before))
	return text, edits, nil
}

// applyPatch parses a document and applies a patch to its tree.
func applyPatch(d rawDocument, patch []operations.Operation) (*yamlv3.Node, error) {
	root, err := parseDocument(d)
	if err != nil {
		return nil, err
	}
	if err := expandAliases(root); err != nil {
		return nil, err
	}
	for _, op := range patch {
		if err := applyOperation(root, op); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// reencodeDocument applies a patch and encodes the whole document again, with its
// comments and the order of its keys.
func reencodeDocument(d rawDocument, patch []operations.Operation) ([]byte, error) {
	root, err := parseDocument(d)
	if err != nil {
		return nil, err
	}
	after, err := applyPatch(d, patch)
	if err != nil {
		return nil, err
	}
	if d.isJSON {
		var out bytes.Buffer
		jsonStyleOf(d.body).writeNode(&out, after, 0)
		return out.Bytes(), nil
	}
	layout := detectLayout(d.body, root)
	text, err := layout.encode(after)
	if err != nil {
		return nil, err
	}
	if !bytes.HasSuffix(d.body, []byte("\n")) {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	return bytes.ReplaceAll(text, []byte("\n"), []byte(layout.lineBreak)), nil
}
