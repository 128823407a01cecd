package manifest

import (
	"bytes"
	"sort"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// lineIndex finds the positions of nodes in a text. It counts lines as YAML 1.1 does,
// because the parser's positions do: U+0085, U+2028 and U+2029 end a line too.
type lineIndex struct {
	text []byte
	// starts holds the offset of each line.
	starts []int
	// byteColumns is true for JSON: columns count bytes, not characters, because a
	// document is often one long line.
	byteColumns bool
}

func newLineIndex(text []byte) lineIndex {
	x := lineIndex{text: text, starts: []int{0}}
	for pos := 0; pos < len(text); {
		content, length := yamlLine(text[pos:])
		if pos += length; content < length {
			x.starts = append(x.starts, pos)
		}
	}
	return x
}

// yamlLine returns the length of the first line of data without and with its line break.
func yamlLine(data []byte) (content, length int) {
	for i, b := range data {
		switch {
		case b == '\r' && i+1 < len(data) && data[i+1] == '\n':
			return i, i + 2
		case b == '\n' || b == '\r':
			return i, i + 1
		case b == 0xc2 && bytes.HasPrefix(data[i:], []byte("\u0085")):
			return i, i + 2
		case b == 0xe2 && (bytes.HasPrefix(data[i:], []byte("\u2028")) || bytes.HasPrefix(data[i:], []byte("\u2029"))):
			return i, i + 3
		}
	}
	return len(data), len(data)
}

// offset returns the offset of a node; -1 if it has no position in the text.
func (x lineIndex) offset(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(x.starts) || n.Column < 1 {
		return -1
	}
	pos := x.starts[n.Line-1]
	if x.byteColumns {
		return min(pos+n.Column-1, len(x.text))
	}
	for range n.Column - 1 {
		if pos >= len(x.text) {
			return -1
		}
		_, size := utf8.DecodeRune(x.text[pos:])
		pos += size
	}
	return pos
}

// position returns the line and the column of an offset, each from 1.
func (x lineIndex) position(offset int) (line, column int) {
	line = sort.SearchInts(x.starts, offset+1)
	if x.byteColumns {
		return line, 1 + offset - x.starts[line-1]
	}
	return line, 1 + utf8.RuneCount(x.text[x.starts[line-1]:offset])
}

// lineEnd returns the offset of the line break that ends the line of an offset.
func (x lineIndex) lineEnd(offset int) int {
	line := sort.SearchInts(x.starts, offset+1)
	if line == len(x.starts) {
		return len(x.text) // the last line has no line break
	}
	return x.starts[line] - x.breakLength(line)
}

// breakLength returns the length of the line break that ends a line.
func (x lineIndex) breakLength(line int) int {
	text := x.text[x.starts[line-1]:x.starts[line]]
	for _, lineBreak := range []string{"\r\n", "\n", "\r", "\u0085", "\u2028", "\u2029"} {
		if bytes.HasSuffix(text, []byte(lineBreak)) {
			return len(lineBreak)
		}
	}
	return 0
}

// indentAt returns the indentation of the line of an offset.
func (x lineIndex) indentAt(offset int) string {
	line, _ := x.position(offset)
	text := x.text[x.starts[line-1]:]
	return string(text[:len(text)-len(bytes.TrimLeft(text, " \t"))])
}

// startsLine reports whether only blanks precede an offset on its line.
func (x lineIndex) startsLine(offset int) bool {
	line, _ := x.position(offset)
	return len(bytes.TrimLeft(x.text[x.starts[line-1]:offset], " \t")) == 0
}
