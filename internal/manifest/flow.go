package manifest

import "bytes"

// flowCollection holds the offsets of a mapping or sequence in flow style. JSON is flow
// style too.
type flowCollection struct {
	// open and close are the offsets of the brackets.
	open, close int
	entries     []flowEntry
}

// flowEntry is one entry: from its first to after its last character.
type flowEntry struct {
	start, end int
	// comma is the offset of the comma after the entry; -1 if there is none.
	comma int
}

// scanFlow finds the entries of the collection whose bracket is at an offset. ok is false
// if the text there is no complete collection. It finds where values end; that they are
// valid is the parser's business.
func scanFlow(text []byte, open int) (c flowCollection, ok bool) {
	c.open = open
	if open < 0 || open >= len(text) || text[open] != '{' && text[open] != '[' {
		return c, false
	}
	entry, depth, colon := flowEntry{start: -1, comma: -1}, 0, false
	take := func(pos, end int) int {
		if depth == 0 && entry.start < 0 {
			entry.start = pos
		}
		entry.end, colon = end, false
		return end
	}
	finish := func(comma, pos int) {
		if entry.start < 0 {
			return
		}
		if colon && len(bytes.Trim(text[entry.end:pos], " \t")) == 0 {
			entry.end = pos // the blanks after a colon are an empty value
		}
		entry.comma = comma
		c.entries = append(c.entries, entry)
		entry, colon = flowEntry{start: -1, comma: -1}, false
	}
	for pos := open + 1; pos < len(text); {
		switch b := text[pos]; b {
		case ' ', '\t', '\r', '\n':
			pos++
		case '#':
			content, _ := yamlLine(text[pos:])
			pos += content
		case '"', '\'':
			end := quotedEnd(text, pos)
			if end < 0 {
				return c, false
			}
			pos = take(pos, end)
		case '{', '[':
			pos = take(pos, pos+1)
			depth++
		case '}', ']':
			if depth == 0 {
				finish(-1, pos)
				c.close = pos
				return c, true
			}
			depth--
			pos = take(pos, pos+1)
		case ',':
			if depth == 0 {
				finish(pos, pos)
			}
			pos++
		case ':':
			pos = take(pos, pos+1)
			colon = depth == 0
		default:
			pos = take(pos, plainEnd(text, pos))
		}
	}
	return c, false
}

// quotedEnd returns the offset after a quoted scalar; -1 if it does not end.
func quotedEnd(text []byte, pos int) int {
	quote := text[pos]
	for pos++; pos < len(text); pos++ {
		switch {
		case text[pos] == '\\' && quote == '"':
			pos++
		case text[pos] == quote && quote == '\'' && pos+1 < len(text) && text[pos+1] == quote:
			pos++
		case text[pos] == quote:
			return pos + 1
		}
	}
	return -1
}

// plainEnd returns the offset after the part of a plain scalar in flow style that is on
// one line, or after an anchor, an alias or a tag.
func plainEnd(text []byte, pos int) int {
	isWord := bytes.IndexByte([]byte("&*!"), text[pos]) >= 0
	end := pos + 1
	for i := pos + 1; i < len(text); i++ {
		switch b := text[i]; {
		case b == '\r' || b == '\n' || bytes.IndexByte([]byte(",[]{}"), b) >= 0:
			return end
		case b == ':' && (i+1 == len(text) || bytes.IndexByte([]byte(" \t\r\n,[]{}"), text[i+1]) >= 0):
			return end
		case b == ' ' || b == '\t':
			if isWord || i+1 < len(text) && text[i+1] == '#' {
				return end
			}
		default:
			end = i + 1
		}
	}
	return end
}
