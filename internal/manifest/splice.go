package manifest

import (
	"bytes"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// spliceText writes the difference between two trees of the same text into that text
// and changes no other line. before is the parsed tree. after is another parse with
// edits, where inserted nodes have no line. The result is nil if the layout does not
// allow the edit.
//
// spliceText relies on the positions of the parser and guesses where a node ends. The
// caller must check that the result has the intended meaning.
func spliceText(text []byte, before, after *yaml.Node, layout layout) ([]byte, []textEdit) {
	s := splicer{layout: layout}
	for rest := text; len(rest) > 0; {
		n := lineLength(rest)
		s.lines = append(s.lines, string(rest[:n]))
		rest = rest[n:]
	}
	finalBreak := bytes.HasSuffix(text, []byte("\n"))
	if !finalBreak && len(s.lines) > 0 {
		s.lines[len(s.lines)-1] += layout.lineBreak
	}
	if !isSameNode(before, after) || !s.spliceNode(before, after, len(s.lines)+1) {
		return nil, nil
	}
	out := s.text()
	if !finalBreak {
		out = bytes.TrimSuffix(out, []byte(layout.lineBreak))
	}
	return out, s.edits
}

type splicer struct {
	lines  []string
	layout layout
	edits  []textEdit
}

// textEdit replaces the lines from begin up to, but not including, end. Lines count
// from 1.
type textEdit struct {
	begin, end int
	lines      []string
}

func (s *splicer) text() []byte {
	sort.SliceStable(s.edits, func(i, j int) bool { return s.edits[i].begin < s.edits[j].begin })
	var out bytes.Buffer
	next := 1
	for _, e := range s.edits {
		for ; next < e.begin; next++ {
			out.WriteString(s.lines[next-1])
		}
		for _, l := range e.lines {
			out.WriteString(l)
		}
		next = max(next, e.end)
	}
	for ; next <= len(s.lines); next++ {
		out.WriteString(s.lines[next-1])
	}
	return out.Bytes()
}

// spliceNode splices the edits inside a node that is in both trees. end is the line
// after the last one that can belong to the node. It returns false if the layout does
// not allow the edits.
func (s *splicer) spliceNode(before, after *yaml.Node, end int) bool {
	if before.Kind == yaml.ScalarNode || isUnchanged(before, after) {
		return true
	}
	if before.Style&yaml.FlowStyle != 0 || len(before.Content) == 0 || len(after.Content) == 0 {
		return false
	}
	if before.Kind == yaml.MappingNode {
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
		case j < len(after.Content) && s.matchesEntry(before.Content[i*step], after.Content[j], step):
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
			s.edits = append(s.edits, textEdit{begin: s.commentStart(old[i].start, previous, column), end: last})
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
			s.edits = append(s.edits, textEdit{begin: last, end: last, lines: text})
		}
	}
	return j == len(after.Content)
}

// replaceEntry replaces the lines of an entry with its new rendering.
func (s *splicer) replaceEntry(before, after *yaml.Node, i, j, step, column, start, end int) bool {
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
	s.edits = append(s.edits, textEdit{begin: start, end: end, lines: text})
	return true
}

// matchesEntry reports whether an entry of the edited tree is an entry of the parsed one.
func (s *splicer) matchesEntry(before, after *yaml.Node, step int) bool {
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
	for rest := text; len(rest) > 0; {
		l := lineLength(rest)
		line := strings.TrimRight(string(rest[:l]), "\n")
		if line != "" {
			line = indent + line
		}
		out = append(out, line+s.layout.lineBreak)
		rest = rest[l:]
	}
	return out, len(out) > 0
}

func isBlank(s string) bool { return strings.TrimSpace(s) == "" }
