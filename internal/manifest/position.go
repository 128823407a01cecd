package manifest

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// entryStart is the line on which an entry starts, zero when it cannot be told.
func (s *splicer) entryStart(n *yaml.Node, i, step, column int) int {
	line := n.Content[i].Line
	if line < 1 || line > len(s.lines) {
		return 0
	}
	if step == 2 {
		return line
	}
	for ; line >= n.Line; line-- {
		text := s.lines[line-1]
		if len(text) >= column && text[column-1] == '-' {
			return line
		}
	}
	return 0
}

// commentStart is the first line of the comment right above an entry: it goes with
// the entry. What stands above the first entry is about all of them, and stays.
// previous is the line after the entry before, zero when there is none.
func (s *splicer) commentStart(start, previous, column int) int {
	if previous == 0 {
		return start
	}
	lead := strings.Repeat(" ", column-1) + "#"
	for start > previous && strings.HasPrefix(s.lines[start-2], lead) {
		start--
	}
	return start
}

// dashColumn is the column of a block sequence's dashes. A sequence with an
// anchor or tag starts there, on the line above.
func (s *splicer) dashColumn(n *yaml.Node) int {
	if n.Line > len(s.lines) {
		return n.Column
	}
	if text := s.lines[n.Line-1]; len(text) >= n.Column && text[n.Column-1] == '-' {
		return n.Column
	}
	text := s.lines[min(n.Line, len(s.lines)-1)]
	return 1 + len(text) - len(strings.TrimLeft(text, " "))
}

// linePrefix is what stands on a line before a column.
func (s *splicer) linePrefix(line, column int) string {
	if text := s.lines[line-1]; len(text) >= column {
		return text[:column-1]
	}
	return ""
}

// contentEnd is the line after the last line of n, which starts on start and
// ends before end: blank lines and comments below it are not its own.
func (s *splicer) contentEnd(n *yaml.Node, start, end int) int {
	last := n
	for len(last.Content) > 0 && last.Style&yaml.FlowStyle == 0 {
		last = last.Content[len(last.Content)-1]
	}
	if last.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 && last.Line >= start && last.Line < end {
		return s.blockScalarEnd(last, end)
	}
	for end-1 > start && isBlankOrComment([]byte(s.lines[end-2])) {
		end--
	}
	return end
}

// blockScalarEnd is the line after a block scalar. What looks like a comment there
// is text as long as it is indented like the rest.
func (s *splicer) blockScalarEnd(scalar *yaml.Node, end int) int {
	keepsBlankLines := strings.Contains(s.lines[scalar.Line-1], "|+") || strings.Contains(s.lines[scalar.Line-1], ">+")
	last, indent := scalar.Line, -1
	for line := scalar.Line + 1; line < end; line++ {
		text := strings.TrimRight(s.lines[line-1], "\r\n")
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

// isInserted is true for a node that an edit brought.
func isInserted(n *yaml.Node) bool { return n.Line == 0 }

// isSameNode is true for a node and its counterpart in another parse of the text.
func isSameNode(before, after *yaml.Node) bool {
	return !isInserted(after) && before.Kind == after.Kind && before.Line == after.Line && before.Column == after.Column
}

// isUnchanged is true when nothing was edited in or below a node.
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
