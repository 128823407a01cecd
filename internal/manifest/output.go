package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"
)

// Text is the result as it came in, with the edits. Several sources are
// joined so that their documents stay apart.
func (r Result) Text() []byte {
	var out bytes.Buffer
	previous, json := "", false
	for i, d := range r.Documents {
		if i > 0 && d.Source != previous {
			separateSources(&out, d, json)
		}
		previous, json = d.Source, d.JSON
		out.Write(d.Prefix)
		out.Write(d.After)
		out.Write(d.Suffix)
	}
	return out.Bytes()
}

// separateSources puts a "---" between two sources where the second does not bring one.
func separateSources(out *bytes.Buffer, next Document, afterJSON bool) {
	if b := out.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
		out.WriteByte('\n')
	}
	if afterJSON && next.JSON || startsWithMarker(next.Prefix) {
		return
	}
	out.WriteString("---\n")
}

// startsWithMarker is true when the first line that says something is a "---".
func startsWithMarker(prefix []byte) bool {
	for rest := bytes.TrimPrefix(prefix, byteOrderMark); len(rest) > 0; {
		n := lineLength(rest)
		if line := rest[:n]; !isBlankOrComment(line) {
			return isMarker(line, startMarker)
		}
		rest = rest[n:]
	}
	return false
}

// JSON is the result as JSON objects, one after the other. Comments and empty
// documents are left out.
func (r Result) JSON() ([]byte, error) {
	var out bytes.Buffer
	for _, d := range r.Documents {
		if isEmptyDocument(rawDocument{body: d.After}) {
			continue
		}
		raw := d.After
		if !d.JSON {
			var err error
			if raw, err = yaml.YAMLToJSON(raw); err != nil {
				return nil, fmt.Errorf("%s:%d: document %d: %w", d.Source, d.Line, d.Number, newLineError(err))
			}
		}
		if err := json.Indent(&out, raw, "", "    "); err != nil {
			return nil, fmt.Errorf("%s:%d: document %d: %w", d.Source, d.Line, d.Number, err)
		}
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}
