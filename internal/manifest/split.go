package manifest

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// chunk is one document of a stream with the bytes around it. The chunks of a
// stream, each printed as prefix, body and suffix, are the stream.
type chunk struct {
	// prefix is what comes before the document: byte order mark, directives,
	// comments and the "---" line.
	prefix []byte
	// body is the document itself.
	body []byte
	// suffix is what ends the document: the "..." line, or the space behind
	// the last JSON value.
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

// split cuts a stream into its documents. A "---" or "..." at the start of a
// line ends a document wherever it stands: YAML forbids both inside of quoted
// and block scalars. The splitters of apimachinery and yaml.v3 drop the bytes
// between documents, which must survive here.
func split(data []byte) []chunk {
	var chunks []chunk
	line := 1
	for _, c := range splitMarkers(data) {
		c.line = line + lines(c.prefix)
		line = c.line + lines(c.body) + lines(c.suffix)
		chunks = append(chunks, splitJSON(c)...)
	}
	return chunks
}

// splitMarkers cuts at the YAML document markers.
func splitMarkers(data []byte) []chunk {
	var chunks []chunk
	start, blank, directives := 0, true, false
	cut := func(end int) {
		if end > start {
			chunks = append(chunks, divide(data[start:end]))
		}
		start, blank, directives = end, true, false
	}
	for pos := 0; pos < len(data); {
		next := pos + lineLength(data[pos:])
		line := data[pos:next]
		if pos == 0 {
			line = bytes.TrimPrefix(line, byteOrderMark)
		}
		switch {
		case isMarker(line, startMarker):
			if !blank || !directives {
				cut(pos)
			}
			blank = false
		case isMarker(line, endMarker):
			cut(next)
		case blank && isDirective(line):
			directives = true
		case !isBlankOrComment(line):
			blank = false
		}
		pos = next
	}
	cut(len(data))
	return chunks
}

// divide tells one document from what surrounds it. Comments above the first
// key belong to the document, those above its marker do not.
func divide(span []byte) chunk {
	begin, end, empty := 0, len(span), true
	if bytes.HasPrefix(span, byteOrderMark) {
		begin = len(byteOrderMark)
	}
	top := begin
	for pos := begin; pos < len(span); {
		next := pos + lineLength(span[pos:])
		line := span[pos:next]
		switch {
		case top == begin && isMarker(line, startMarker):
			rest := bytes.TrimSpace(line[len(startMarker):])
			top, empty = next, true
			if len(rest) > 0 && rest[0] != '#' {
				top, empty = pos+len(startMarker), false
			}
		case isMarker(line, endMarker):
			end = pos
		case !isBlankOrComment(line):
			empty = false
		}
		pos = next
	}
	if empty && top == begin {
		top = end
	}
	return chunk{prefix: span[:top], body: span[top:end], suffix: span[end:]}
}

// splitJSON cuts a chunk that holds JSON values into one chunk per value, and
// returns any other chunk as it is.
func splitJSON(c chunk) []chunk {
	body := c.body
	if first := bytes.TrimLeft(body, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return []chunk{c}
	}
	var out []chunk
	dec := json.NewDecoder(bytes.NewReader(body))
	pos := 0
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			if len(bytes.TrimSpace(body[pos:])) > 0 {
				// Not JSON to its end: YAML's flow style looks like this too.
				return []chunk{c}
			}
			break
		}
		end := int(dec.InputOffset())
		begin := end - len(raw)
		out = append(out, chunk{
			prefix: body[pos:begin], body: body[begin:end], isJSON: true,
			line: c.line + lines(body[:begin]),
		})
		pos = end
	}
	out[0].prefix = join(c.prefix, out[0].prefix)
	last := &out[len(out)-1]
	last.suffix = join(body[pos:], c.suffix)
	return out
}

// join concatenates without writing into either side's memory.
func join(a, b []byte) []byte {
	return append(append(make([]byte, 0, len(a)+len(b)), a...), b...)
}

// lineLength is the length of the first line of data with its line break.
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

// lines counts the line breaks in data.
func lines(data []byte) int {
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

// notText says why data cannot be a manifest, and is empty when it can.
func notText(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		return "is UTF-16: save it as UTF-8 (PowerShell: Out-File -Encoding utf8)"
	case !utf8.Valid(data):
		return "is not UTF-8 text"
	}
	return ""
}
