package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"
)

// Text returns the sources with the edits, each document in its own format. It puts a
// "---" between two sources where they need one.
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

// separateSources writes a "---" between two sources, unless the second starts with one.
func separateSources(out *bytes.Buffer, next Document, afterJSON bool) {
	if b := out.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
		out.WriteByte('\n')
	}
	if afterJSON && next.JSON || startsWithMarker(next.Prefix) {
		return
	}
	out.WriteString("---\n")
}

// startsWithMarker reports whether the first line that is not blank and not a comment is
// a "---".
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

// JSON returns the documents as JSON, one after the other. It leaves out comments and
// empty documents.
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
