package manifest

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// entryStart returns the line on which an entry starts; zero if it cannot be
// determined.
func (s *splicer) entryStart(n *yaml.Node, i, step, column int) int {
	line := n.Content[i].Line
	if line < 1 || line >= len(s.starts) {
		return 0
	}
	if step == 2 {
		return line
	}
	for ; line >= n.Line; line-- {
		text := s.line(line)
		if len(text) >= column && text[column-1] == '-' {
			return line
		}
	}
	return 0
}

// commentStart returns the first line of the comment directly above an entry, which is
// removed together with the entry. A comment above the first entry refers to all
// entries and stays. previous is the line after the previous entry; zero for the first
// entry.
func (s *splicer) commentStart(start, previous, column int) int {
	if previous == 0 {
		return start
	}
	lead := strings.Repeat(" ", column-1) + "#"
	for start > previous && strings.HasPrefix(s.line(start-1), lead) {
		start--
	}
	return start
}

// dashColumn returns the column of the dashes of a block sequence. The parser's
// position of a sequence with an anchor or tag is that of the anchor or tag, on the
// line above.
func (s *splicer) dashColumn(n *yaml.Node) int {
	if n.Line >= len(s.starts) {
		return n.Column
	}
	if text := s.line(n.Line); len(text) >= n.Column && text[n.Column-1] == '-' {
		return n.Column
	}
	text := s.line(min(n.Line+1, len(s.starts)-1))
	return 1 + len(text) - len(strings.TrimLeft(text, " "))
}

// linePrefix returns the text of a line before a column.
func (s *splicer) linePrefix(line, column int) string {
	if text := s.line(line); len(text) >= column {
		return text[:column-1]
	}
	return ""
}

// contentEnd returns the line after the last line of n, which starts on line start and
// ends before line end. Blank lines and comments below n do not belong to it.
func (s *splicer) contentEnd(n *yaml.Node, start, end int) int {
	last := n
	for len(last.Content) > 0 && last.Style&yaml.FlowStyle == 0 {
		last = last.Content[len(last.Content)-1]
	}
	if last.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 && last.Line >= start && last.Line < end {
		return s.blockScalarEnd(last, end)
	}
	for end-1 > start && isBlankOrComment([]byte(s.line(end-1))) {
		end--
	}
	return end
}

// blockScalarEnd returns the line after a block scalar. A line that looks like a
// comment belongs to the scalar if it is indented like the scalar.
func (s *splicer) blockScalarEnd(scalar *yaml.Node, end int) int {
	keepsBlankLines := strings.Contains(s.line(scalar.Line), "|+") || strings.Contains(s.line(scalar.Line), ">+")
	last, indent := scalar.Line, -1
	for line := scalar.Line + 1; line < end; line++ {
		text := strings.TrimRight(s.line(line), "\r\n")
		lineIndent := len(text) - len(strings.TrimLeft(text, " "))
		switch {
		case isBlank(text):
			if keepsBlankLines {
				last = line
			}
			continue
		case indent < 0:
			indent = lineIndent
		}
		if lineIndent < indent {
			break
		}
		last = line
	}
	return last + 1
}

// lineOf returns the line of an offset.
func (x lineIndex) lineOf(offset int) int {
	line, _ := x.position(offset)
	return line
}

// isInserted reports whether an edit has inserted a node.
func isInserted(n *yaml.Node) bool { return n.Line == 0 }

// isSameNode reports whether two nodes from two parses of the same text correspond.
func isSameNode(before, after *yaml.Node) bool {
	return !isInserted(after) && before.Kind == after.Kind && before.Line == after.Line && before.Column == after.Column
}

// isUnchanged reports whether a node and everything below it is without an edit.
func isUnchanged(before, after *yaml.Node) bool {
	if !isSameNode(before, after) || len(before.Content) != len(after.Content) {
		return false
	}
	for i := range before.Content {
		if !isUnchanged(before.Content[i], after.Content[i]) {
			return false
		}
	}
	return true
}
