package manifest

import (
	"bytes"

	"go.yaml.in/yaml/v3"
)

// spliceFlow splices the entries of a mapping or sequence in flow style.
func (s *splicer) spliceFlow(before, after *yaml.Node) bool {
	f, ok := s.newFlowEdit(before)
	if !ok {
		return false
	}
	if !f.alignEntries(after) {
		return false
	}
	f.removeEntries()
	return true
}

// flowEdit is the edit of one mapping or sequence in flow style.
type flowEdit struct {
	*splicer
	flowCollection
	before *yaml.Node
	// step is the number of nodes per entry: 2 in a mapping, 1 in a sequence.
	step int
	// removed holds a value per entry.
	removed []bool
	// multiline is true if the collection spans several lines.
	multiline bool
}

func (s *splicer) newFlowEdit(before *yaml.Node) (*flowEdit, bool) {
	open := s.offset(before)
	for open >= 0 && open < len(s.text) && bytes.IndexByte([]byte("&!"), s.text[open]) >= 0 {
		open = plainEnd(s.text, open) // an anchor or a tag
		open += len(s.text[open:]) - len(bytes.TrimLeft(s.text[open:], " \t\r\n"))
	}
	c, ok := scanFlow(s.text, open)
	f := &flowEdit{splicer: s, flowCollection: c, before: before, step: 1}
	if before.Kind == yaml.MappingNode {
		f.step = 2
	}
	if !ok || len(c.entries)*f.step != len(before.Content) {
		return nil, false
	}
	f.removed = make([]bool, len(c.entries))
	f.multiline = bytes.ContainsAny(s.text[c.open:c.close], "\r\n")
	return f, true
}

// alignEntries edits and inserts entries, and marks those that are removed.
func (f *flowEdit) alignEntries(after *yaml.Node) bool {
	j := 0
	insert := func(i int) bool {
		first := j
		for j < len(after.Content) && isInserted(after.Content[j]) {
			j += f.step
		}
		return first == j || f.insertEntries(i, after.Content[first:j], after.Kind)
	}
	if !insert(-1) {
		return false
	}
	for i := range f.entries {
		if j >= len(after.Content) || !matchesEntry(f.before.Content[i*f.step], after.Content[j], f.step) {
			f.removed[i] = true
			continue
		}
		b, a := f.before.Content[i*f.step+f.step-1], after.Content[j+f.step-1]
		mark := len(f.edits)
		if !isSameNode(b, a) || !f.spliceNode(b, a, 0) {
			f.edits = f.edits[:mark]
			if !f.replaceValue(i, b, a) {
				return false
			}
		}
		j += f.step
		if !insert(i) {
			return false
		}
	}
	return j == len(after.Content)
}

// replaceValue replaces the value of an entry.
func (f *flowEdit) replaceValue(i int, before, after *yaml.Node) bool {
	e := f.entries[i]
	text, ok := f.flow.render(after, f.indentAt(e.start), f.multiline)
	if !ok {
		return false
	}
	begin := f.offset(before)
	if begin < e.start || begin > e.end || before.Kind == yaml.ScalarNode && before.Value == "" && before.Style == 0 {
		// An empty value has no text of its own.
		colon := bytes.LastIndexByte(f.text[e.start:e.end], ':')
		if colon < 0 {
			return false
		}
		if begin = e.start + colon + 1; text != "" {
			text = " " + text
		}
	}
	f.replaceText(begin, e.end, text)
	return true
}

// insertEntries inserts entries behind entry i, or before the first one if i is -1.
func (f *flowEdit) insertEntries(i int, content []*yaml.Node, kind yaml.Kind) bool {
	if len(f.entries) == 0 {
		return false
	}
	at := f.entries[max(i, 0)]
	ownLine := f.multiline && f.startsLine(at.start)
	if i >= 0 {
		_, endsLine := f.tail(i)
		ownLine = ownLine && endsLine
	}
	base := f.indentAt(at.start)
	separator := f.inlineComma()
	if ownLine {
		separator = "," + f.flow.breakOr(f.layout.lineBreak) + base
	}
	text := ""
	for n := 0; n < len(content); n += f.step {
		one := &yaml.Node{Kind: kind, Content: content[n : n+f.step]}
		entry, ok := f.renderEntry(one, base)
		if !ok {
			return false
		}
		if n > 0 {
			text += separator
		}
		text += entry
	}
	lead := separator[1:]
	switch {
	case i < 0:
		f.replaceText(at.start, at.start, text+separator)
	case at.comma < 0:
		tail, _ := f.tail(i)
		if tail == at.end || !ownLine {
			f.replaceText(at.end, at.end, ","+lead+text)
			break
		}
		f.replaceText(at.end, at.end, ",")
		f.replaceText(tail, tail, lead+text)
	default:
		tail, endsLine := f.tail(i)
		if !ownLine || !endsLine {
			tail = at.comma + 1
		}
		f.replaceText(tail, tail, lead+text+",")
	}
	return true
}

// renderEntry writes one entry in the style of the collection.
func (f *flowEdit) renderEntry(one *yaml.Node, base string) (string, bool) {
	text, ok := f.flow.render(one.Content[f.step-1], base, f.multiline)
	if f.step == 1 || !ok {
		return text, ok
	}
	key, ok := f.flow.key(one.Content[0])
	return key + f.flow.colon + text, ok
}

// inlineComma returns the comma between entries on one line.
func (f *flowEdit) inlineComma() string {
	for i, e := range f.entries {
		if i+1 < len(f.entries) && e.comma >= 0 && f.entries[i+1].start == e.comma+1 {
			return ","
		}
	}
	return f.flow.comma
}

// tail returns the offset after an entry, its comma and the comment behind it. endsLine is
// true if nothing else follows on the line.
func (f *flowEdit) tail(i int) (offset int, endsLine bool) {
	e := f.entries[i]
	offset = e.end
	if e.comma >= 0 {
		offset = e.comma + 1
	}
	end := f.lineEnd(offset)
	if rest := f.text[offset:end]; isBlankOrComment(rest) {
		return end, true
	}
	return offset, false
}

// removeEntries removes the entries that are marked.
func (f *flowEdit) removeEntries() {
	for i := 0; i < len(f.entries); i++ {
		if !f.removed[i] {
			continue
		}
		first := i
		for i+1 < len(f.entries) && f.removed[i+1] {
			i++
		}
		f.removeRun(first, i)
	}
}

// removeRun removes the entries from first to last, and one comma fewer than entries if
// they are at an end of the collection without a trailing comma.
func (f *flowEdit) removeRun(first, last int) {
	end, _ := f.tail(last)
	switch {
	case first == 0:
		begin := f.entries[0].start
		end += len(f.text[end:]) - len(bytes.TrimLeft(f.text[end:], " \t\r\n"))
		f.replaceText(begin, end, "")
	case last == len(f.entries)-1:
		begin, _ := f.tail(first - 1)
		if comma := f.entries[last].comma; comma >= 0 {
			f.replaceText(begin, comma+1, "")
			return
		}
		comma := f.entries[first-1].comma
		if begin == comma+1 {
			f.replaceText(comma, f.entries[last].end, "")
			return
		}
		f.replaceText(comma, comma+1, "")
		f.replaceText(begin, f.entries[last].end, "")
	default:
		begin, _ := f.tail(first - 1)
		f.replaceText(begin, end, "")
	}
}
