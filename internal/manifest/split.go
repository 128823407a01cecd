package manifest

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// rawDocument is the text of one document of a stream, with the bytes around it. The
// prefixes, bodies and suffixes of all documents, in order, are the stream.
type rawDocument struct {
	// prefix holds the bytes before the document: byte order mark, directives,
	// comments and the "---" line.
	prefix []byte
	// body is the document itself.
	body []byte
	// suffix holds the bytes after the document: the "..." line, or the white space
	// after the last JSON value.
	suffix []byte
	// line is the line of the stream on which body starts, from 1.
	line int
	// isJSON is true when body is exactly one JSON value.
	isJSON bool
}

var (
	byteOrderMark = []byte("\xef\xbb\xbf")
	startMarker   = []byte("---")
	endMarker     = []byte("...")
)

// splitDocuments splits a stream into its documents. A "---" or "..." at the start of
// a line always ends a document: YAML forbids both inside quoted and block scalars.
// The splitters of apimachinery and yaml.v3 drop the bytes between documents, which
// this package must preserve.
func splitDocuments(data []byte) []rawDocument {
	var documents []rawDocument
	line := 1
	for _, d := range splitAtMarkers(data) {
		d.line = line + countLines(d.prefix)
		line = d.line + countLines(d.body) + countLines(d.suffix)
		documents = append(documents, splitJSONValues(d)...)
	}
	return documents
}

// splitAtMarkers splits a stream at the document markers of YAML.
func splitAtMarkers(data []byte) []rawDocument {
	var documents []rawDocument
	start, empty, directives := 0, true, false
	endDocument := func(end int) {
		if end > start {
			documents = append(documents, newRawDocument(data[start:end]))
		}
		start, empty, directives = end, true, false
	}
	for pos := 0; pos < len(data); {
		next := pos + lineLength(data[pos:])
		line := data[pos:next]
		if pos == 0 {
			line = bytes.TrimPrefix(line, byteOrderMark)
		}
		switch {
		case isMarker(line, startMarker):
			if !empty || !directives {
				endDocument(pos)
			}
			empty = false
		case isMarker(line, endMarker):
			endDocument(next)
		case empty && isDirective(line):
			directives = true
		case !isBlankOrComment(line):
			empty = false
		}
		pos = next
	}
	endDocument(len(data))
	return documents
}

// newRawDocument separates a document from the bytes around it. Comments above the
// first key belong to the document, comments above its marker do not.
func newRawDocument(text []byte) rawDocument {
	begin, end, empty := 0, len(text), true
	if bytes.HasPrefix(text, byteOrderMark) {
		begin = len(byteOrderMark)
	}
	bodyStart := begin
	for pos := begin; pos < len(text); {
		next := pos + lineLength(text[pos:])
		line := text[pos:next]
		switch {
		case bodyStart == begin && isMarker(line, startMarker):
			// Blanks after the marker can be tabs, which cannot start a document.
			rest := bytes.TrimLeft(line[len(startMarker):], " \t\r\n")
			bodyStart, empty = next, true
			if len(rest) > 0 && rest[0] != '#' {
				bodyStart, empty = next-len(rest), false
			}
		case isMarker(line, endMarker):
			end = pos
		case !isBlankOrComment(line):
			empty = false
		}
		pos = next
	}
	if empty && bodyStart == begin {
		bodyStart = end
	}
	return rawDocument{prefix: text[:bodyStart], body: text[bodyStart:end], suffix: text[end:]}
}

// splitJSONValues splits a document that holds several JSON values into one document
// per value. It returns any other document as it is.
func splitJSONValues(d rawDocument) []rawDocument {
	body := d.body
	if first := bytes.TrimLeft(body, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return []rawDocument{d}
	}
	var out []rawDocument
	dec := json.NewDecoder(bytes.NewReader(body))
	pos := 0
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			if len(bytes.TrimSpace(body[pos:])) > 0 {
				// Not JSON up to the end. Flow style of YAML starts like JSON.
				return []rawDocument{d}
			}
			break
		}
		end := int(dec.InputOffset())
		begin := end - len(raw)
		out = append(out, rawDocument{
			prefix: body[pos:begin], body: body[begin:end], isJSON: true,
			line: d.line + countLines(body[:begin]),
		})
		pos = end
	}
	out[0].prefix = concat(d.prefix, out[0].prefix)
	last := &out[len(out)-1]
	last.suffix = concat(body[pos:], d.suffix)
	return out
}

// concat concatenates two slices into a new one.
func concat(a, b []byte) []byte {
	return append(append(make([]byte, 0, len(a)+len(b)), a...), b...)
}

// lineLength returns the length of the first line of data, with its line break.
func lineLength(data []byte) int {
	for i, b := range data {
		switch {
		case b == '\n':
			return i + 1
		case b == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
			return i + 1
		}
	}
	return len(data)
}

// countLines counts the line breaks in data.
func countLines(data []byte) int {
	n := 0
	for len(data) > 0 {
		l := lineLength(data)
		if last := data[l-1]; last == '\n' || last == '\r' {
			n++
		}
		data = data[l:]
	}
	return n
}

func isMarker(line, marker []byte) bool {
	if !bytes.HasPrefix(line, marker) {
		return false
	}
	rest := line[len(marker):]
	return len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0
}

func isDirective(line []byte) bool { return len(line) > 0 && line[0] == '%' }

func isBlankOrComment(line []byte) bool {
	text := bytes.TrimLeft(line, " \t\r\n")
	return len(text) == 0 || text[0] == '#'
}

// encodingError says why data is not UTF-8 text; empty if it is.
func encodingError(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		return "is UTF-16: save it as UTF-8 (PowerShell: Out-File -Encoding utf8)"
	case !utf8.Valid(data):
		return "is not UTF-8 text"
	}
	return ""
}
