package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	udiff "github.com/aymanbagabas/go-udiff"
	jsonpatch "github.com/evanphx/json-patch/v5"
	operations "gomodules.xyz/jsonpatch/v2"
	"sigs.k8s.io/yaml"
)

// rewriteDocument returns the edits that apply a change to the text of one document. It
// tries three ways to write the result: the first preserves all of the layout that is not
// edited, the last none. It accepts a result only if Kubernetes' own YAML library reads it
// as the patched object. inPlace is false if a comment or the layout can be lost.
func rewriteDocument(d rawDocument, c change) (edits []udiff.Edit, inPlace bool, err error) {
	before, err := toJSON(d)
	if err != nil {
		return nil, false, err
	}
	want, err := patchJSON(before, c.patch)
	if err != nil {
		return nil, false, err
	}
	isPatched := func(text []byte) bool {
		got, err := toJSON(rawDocument{body: text, isJSON: d.isJSON})
		return err == nil && equalJSON(got, want)
	}
	if edits, ok := spliceDocument(d, c); ok {
		if text, err := udiff.ApplyBytes(d.body, edits); err == nil && isPatched(text) {
			return edits, true, nil
		}
	}
	if text, err := reencodeDocument(d, c); err == nil && isPatched(text) {
		return wholeDocument(d, text), false, nil
	}
	text := want
	if !d.isJSON {
		if text, err = yaml.JSONToYAML(want); err != nil {
			return nil, false, err
		}
	}
	if !isPatched(text) {
		return nil, false, errors.New("the edit cannot be written without a change in the document's meaning")
	}
	return wholeDocument(d, text), false, nil
}

// wholeDocument returns the edits that replace a whole document, line by line. A document
// that shared the line of its "---" gets lines of its own.
func wholeDocument(d rawDocument, text []byte) []udiff.Edit {
	if n := len(d.prefix); !d.isJSON && n > 0 && d.prefix[n-1] != '\n' && d.prefix[n-1] != '\r' && !bytes.HasSuffix(d.prefix, byteOrderMark) {
		text = concat([]byte("\n"), text)
	}
	return udiff.Lines(string(d.body), string(text))
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

// spliceDocument applies a change and returns the edits of what it affects. ok is false if
// the layout does not allow the edits.
func spliceDocument(d rawDocument, c change) (edits []udiff.Edit, ok bool) {
	before, err := parseDocument(d)
	if err != nil {
		return nil, false
	}
	after, spellings, err := applyChange(d, c)
	if err != nil {
		return nil, false
	}
	flow := flowStyleOf(d.body, before, d.isJSON)
	flow.spellings = spellings
	return spliceText(d.body, before, after, detectLayout(d.body, before), flow)
}

// reencodeDocument applies a change to a YAML document and encodes the whole document
// again, with its comments and the order of its keys.
func reencodeDocument(d rawDocument, c change) ([]byte, error) {
	if d.isJSON {
		return nil, errors.New("JSON is edited in place")
	}
	root, err := parseDocument(d)
	if err != nil {
		return nil, err
	}
	after, _, err := applyChange(d, c)
	if err != nil {
		return nil, err
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
