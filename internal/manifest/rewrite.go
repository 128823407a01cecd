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

// rewrite carries out a patch on the text of one document. Three ways of
// writing it are tried, from the one that keeps most of the layout to the one
// that keeps none, and each is believed only when Kubernetes' own reading of
// the result is the patched object.
func rewrite(c chunk, patch []operations.Operation) ([]byte, []textEdit, error) {
	before, err := toJSON(c)
	if err != nil {
		return nil, nil, err
	}
	want, err := patched(before, patch)
	if err != nil {
		return nil, nil, err
	}
	means := func(text []byte) bool {
		got, err := toJSON(chunk{body: text, isJSON: c.isJSON})
		return err == nil && sameJSON(got, want)
	}
	if text, edits, err := spliced(c, patch); err == nil && text != nil && means(text) {
		return text, edits, nil
	}
	if text, err := reencoded(c, patch); err == nil && means(text) {
		return text, nil, nil
	}
	text := want
	if !c.isJSON {
		if text, err = yaml.JSONToYAML(want); err != nil {
			return nil, nil, err
		}
	}
	if !means(text) {
		return nil, nil, errors.New("cannot be written back without a change in meaning")
	}
	return text, nil, nil
}

// toJSON is the document as Kubernetes reads it.
func toJSON(c chunk) ([]byte, error) {
	if c.isJSON {
		return c.body, nil
	}
	raw, err := yaml.YAMLToJSON(c.body)
	if err != nil {
		return nil, asLineError(errors.New(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")))
	}
	return raw, nil
}

// patched is what the document must mean afterwards.
func patched(before []byte, patch []operations.Operation) ([]byte, error) {
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

// sameJSON compares what two JSON texts mean.
func sameJSON(a, b []byte) bool {
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

// spliced edits the lines in question alone. There is no text for JSON, nor
// where the layout gives an edit no place.
func spliced(c chunk, patch []operations.Operation) ([]byte, []textEdit, error) {
	if c.isJSON {
		return nil, nil, nil
	}
	before, err := parseYAML(c.body)
	if err != nil {
		return nil, nil, err
	}
	after, err := edited(c, patch)
	if err != nil {
		return nil, nil, err
	}
	text, edits := splice(c.body, before, after, layoutOf(c.body, before))
	return text, edits, nil
}

// edited is the tree of a document with a patch carried out.
func edited(c chunk, patch []operations.Operation) (*yamlv3.Node, error) {
	root, err := parse(c)
	if err != nil {
		return nil, err
	}
	if err := expand(root); err != nil {
		return nil, err
	}
	for _, op := range patch {
		if err := apply(root, op); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// reencoded writes the whole document anew, with its comments and the order
// of its keys.
func reencoded(c chunk, patch []operations.Operation) ([]byte, error) {
	root, err := parse(c)
	if err != nil {
		return nil, err
	}
	after, err := edited(c, patch)
	if err != nil {
		return nil, err
	}
	if c.isJSON {
		var out bytes.Buffer
		jsonStyleOf(c.body).write(&out, after, 0)
		return out.Bytes(), nil
	}
	layout := layoutOf(c.body, root)
	text, err := layout.encode(after)
	if err != nil {
		return nil, err
	}
	if !bytes.HasSuffix(c.body, []byte("\n")) {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	return bytes.ReplaceAll(text, []byte("\n"), []byte(layout.lineBreak)), nil
}
