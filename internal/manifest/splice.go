package manifest

import (
	"bytes"
	"strings"

	udiff "github.com/aymanbagabas/go-udiff"
	"go.yaml.in/yaml/v3"
)

// spliceText returns the edits that write the difference between two trees of the same
// text into that text. No other byte changes. before is the parsed tree. after is another
// parse with edits, where inserted nodes have no line. ok is false if the layout does not
// allow the edits.
//
// spliceText relies on the positions of the parser and finds itself where a node ends.
// The caller must check that the result has the intended meaning.
func spliceText(text []byte, before, after *yaml.Node, layout layout, flow flowStyle) (edits []udiff.Edit, ok bool) {
	complete := text
	lineBreak := ""
	if content, length := yamlLine(lastLine(text)); content == length {
		lineBreak = layout.lineBreak
		complete = concat(text, []byte(lineBreak))
	}
	s := splicer{lineIndex: newLineIndex(complete), layout: layout, flow: flow}
	s.byteColumns = flow.json
	if !isSameNode(before, after) || !s.spliceNode(before, after, len(s.starts)) {
		return nil, false
	}
	udiff.SortEdits(s.edits)
	return withoutLineBreak(s.edits, len(text), lineBreak), true
}

// lastLine returns the last line of a text, with its line break.
func lastLine(text []byte) []byte {
	for len(text) > 0 {
		_, length := yamlLine(text)
		if length == len(text) {
			break
		}
		text = text[length:]
	}
	return text
}

// withoutLineBreak converts edits of a text that was completed by a line break into edits
// of the text itself.
func withoutLineBreak(edits []udiff.Edit, length int, lineBreak string) []udiff.Edit {
	for i, e := range edits {
		switch {
		case e.End <= length:
			continue
		case e.Start > length || e.Start == length && e.End == e.Start:
			e.New = lineBreak + strings.TrimSuffix(e.New, lineBreak)
			e.Start = length
		case e.New == "":
			e.Start -= len(lineBreak) // the line break before the last line goes instead
		default:
			e.New = strings.TrimSuffix(e.New, lineBreak)
		}
		e.End = length
		edits[i] = e
	}
	return edits
}

type splicer struct {
	lineIndex
	layout layout
	flow   flowStyle
	edits  []udiff.Edit
}

// line returns the text of a line, counted from 1, with its line break.
func (s *splicer) line(number int) string {
	return string(s.text[s.starts[number-1]:s.starts[number]])
}

// replaceLines replaces the lines from begin up to, but not including, end.
func (s *splicer) replaceLines(begin, end int, lines ...string) {
	s.replaceText(s.starts[begin-1], s.starts[end-1], strings.Join(lines, ""))
}

func (s *splicer) replaceText(begin, end int, text string) {
	if begin == end && text == "" {
		return
	}
	s.edits = append(s.edits, udiff.Edit{Start: begin, End: end, New: text})
}

// spliceNode splices the edits inside a node that is in both trees. end is the line
// after the last one that can belong to the node. It returns false if the layout does
// not allow the edits.
func (s *splicer) spliceNode(before, after *yaml.Node, end int) bool {
	switch {
	case before.Kind == yaml.ScalarNode || isUnchanged(before, after):
		return true
	case before.Kind == yaml.AliasNode || len(before.Content) == 0 || len(after.Content) == 0:
		return false
	case before.Style&yaml.FlowStyle != 0:
		return s.spliceFlow(before, after)
	case before.Kind == yaml.MappingNode:
		return s.spliceEntries(before, after, end, 2)
	}
	return s.spliceEntries(before, after, end, 1)
}

// spliceEntries splices the entries of a block mapping or block sequence. step is the
// number of nodes per entry: 2 in a mapping, 1 in a sequence.
func (s *splicer) spliceEntries(before, after *yaml.Node, end, step int) bool {
	column := before.Content[0].Column
	if step == 1 {
		column = s.dashColumn(before)
	}
	type entry struct{ start, end int }
	var old []entry
	for i := 0; i < len(before.Content); i += step {
		old = append(old, entry{start: s.entryStart(before, i, step, column)})
		if old[len(old)-1].start == 0 {
			return false
		}
	}
	for i := range old {
		old[i].end = end
		if i+1 < len(old) {
			old[i].end = old[i+1].start
		}
	}
	j, previous := 0, 0
	for i := range old {
		b := before.Content[i*step+step-1]
		last := s.contentEnd(b, old[i].start, old[i].end)
		switch {
		case j < len(after.Content) && matchesEntry(before.Content[i*step], after.Content[j], step):
			a := after.Content[j+step-1]
			mark := len(s.edits)
			if !isSameNode(b, a) || !s.spliceNode(b, a, old[i].end) {
				s.edits = s.edits[:mark]
				if !s.replaceEntry(before, after, i, j, step, column, old[i].start, last) {
					return false
				}
			}
			j += step
		case i == 0 && !isBlank(s.linePrefix(old[i].start, column)):
			return false // the line also holds the parent's "- "
		default:
			s.replaceLines(s.commentStart(old[i].start, previous, column), last)
		}
		previous = last
		if j == 0 && (i+1 == len(old)) {
			return false
		}
		for ; j < len(after.Content) && isInserted(after.Content[j]); j += step {
			if j == 0 {
				return false // inserted entries come after existing ones
			}
			text, ok := s.renderEntry(after, j, step, column)
			if !ok {
				return false
			}
			s.replaceLines(last, last, text...)
		}
	}
	return j == len(after.Content)
}

// replaceEntry replaces the lines of an entry with its new rendering.
func (s *splicer) replaceEntry(before, after *yaml.Node, i, j, step, column, start, end int) bool {
	if step == 2 && s.replaceEmpty(before.Content[i*2], before.Content[i*2+1], after.Content[j+1], column, end) {
		return true
	}
	if v := after.Content[j+step-1]; v.LineComment == "" && v.Kind == yaml.ScalarNode {
		v.LineComment = before.Content[i*step+step-1].LineComment
	}
	// The text already holds the comments above and below.
	entry := *after.Content[j]
	entry.HeadComment, entry.FootComment = "", ""
	saved := after.Content[j]
	after.Content[j] = &entry
	text, ok := s.renderEntry(after, j, step, column)
	after.Content[j] = saved
	if !ok {
		return false
	}
	lead := s.linePrefix(start, column)
	if len(text[0]) < len(lead) {
		return false
	}
	text[0] = lead + text[0][len(lead):]
	s.replaceLines(start, end, text...)
	return true
}

// replaceEmpty edits an entry whose value becomes a block instead of null or empty, or the
// other way round. Key and comment on its first line stay. It returns false for any other
// entry.
func (s *splicer) replaceEmpty(key, before, after *yaml.Node, column, end int) bool {
	at := s.offset(key)
	if at < 0 || key.Kind != yaml.ScalarNode || isEmptyNode(before) == isEmptyNode(after) {
		return false
	}
	colon := s.keyEnd(at)
	if colon < 0 {
		return false
	}
	rest := s.lineEnd(colon)
	if isEmptyNode(after) {
		// The block starts on the next line.
		if first := s.offset(before); before.Style&yaml.FlowStyle != 0 || first < rest || !isBlankOrComment(s.text[colon:rest]) {
			return false
		}
		s.replaceText(colon, colon, s.emptyText(after))
		s.replaceText(rest, s.starts[end-1]-s.breakLength(end-1), "")
		return true
	}
	spelling, ok := s.spelling(key, before)
	if !ok || after.Kind == yaml.ScalarNode || after.Kind == yaml.AliasNode {
		return false
	}
	at = colon + len(spelling)
	if !isBlankOrComment(s.text[at:s.lineEnd(at)]) {
		return false
	}
	pair := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{stringNode("k"), after}}
	text, ok := s.renderEntry(pair, 0, 2, column)
	if !ok || strings.TrimSpace(text[0]) != "k:" {
		return false
	}
	s.replaceText(colon, at, "")
	after.LineComment = ""
	s.replaceLines(s.lineOf(at)+1, s.lineOf(at)+1, text[1:]...)
	return true
}

// matchesEntry reports whether an entry of the edited tree is an entry of the parsed one.
func matchesEntry(before, after *yaml.Node, step int) bool {
	if step == 2 {
		return before.Value == after.Value && !isInserted(after)
	}
	return isSameNode(before, after)
}

// renderEntry encodes one entry as lines that start at a column.
func (s *splicer) renderEntry(n *yaml.Node, i, step, column int) ([]string, bool) {
	one := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Content: n.Content[i : i+step]}
	text, err := s.layout.encode(one)
	if err != nil {
		return nil, false
	}
	indent := strings.Repeat(" ", column-1)
	var out []string
	for line := range bytes.Lines(text) {
		content := strings.TrimRight(string(line), "\n")
		if content != "" {
			content = indent + content
		}
		out = append(out, content+s.layout.lineBreak)
	}
	return out, len(out) > 0
}

func isBlank(s string) bool { return strings.TrimSpace(s) == "" }
