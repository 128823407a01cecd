package manifest

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// startOf is the line on which an entry starts, zero when it cannot be told.
func (s *splicer) startOf(n *yaml.Node, i, step, column int) int {
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

// headStart is the first line of the comment right above an entry: it goes with
// the entry. What stands above the first entry is about all of them, and stays.
// previous is the line after the entry before, zero when there is none.
func (s *splicer) headStart(start, previous, column int) int {
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

// before is what stands on a line before a column.
func (s *splicer) before(line, column int) string {
	if text := s.lines[line-1]; len(text) >= column {
		return text[:column-1]
	}
	return ""
}

// contentEnd is the line after the last line of n, which starts on start and
// ends before end: blank lines and comments below it are not its own.
func (s *splicer) contentEnd(n *yaml.Node, start, end int) int {
	leaf := n
	for len(leaf.Content) > 0 && leaf.Style&yaml.FlowStyle == 0 {
		leaf = leaf.Content[len(leaf.Content)-1]
	}
	if leaf.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 && leaf.Line >= start && leaf.Line < end {
		return s.blockEnd(leaf, end)
	}
	for end-1 > start && isBlankOrComment([]byte(s.lines[end-2])) {
		end--
	}
	return end
}

// blockEnd is the line after a block scalar. What looks like a comment there
// is text as long as it is indented like the rest.
func (s *splicer) blockEnd(leaf *yaml.Node, end int) int {
	keep := strings.Contains(s.lines[leaf.Line-1], "|+") || strings.Contains(s.lines[leaf.Line-1], ">+")
	last, indent := leaf.Line, -1
	for line := leaf.Line + 1; line < end; line++ {
		text := strings.TrimRight(s.lines[line-1], "\r\n")
		own := len(text) - len(strings.TrimLeft(text, " "))
		switch {
		case isBlank(text):
			if keep {
				last = line
			}
			continue
		case indent < 0:
			indent = own
		}
		if own < indent {
			break
		}
		last = line
	}
	return last + 1
}

// isNew is true for a node that an edit brought.
func isNew(n *yaml.Node) bool { return n.Line == 0 }

// isSame is true for a node and its counterpart in another parse of the text.
func isSame(before, after *yaml.Node) bool {
	return !isNew(after) && before.Kind == after.Kind && before.Line == after.Line && before.Column == after.Column
}

// equalNodes is true when nothing was edited in or below a node.
func equalNodes(before, after *yaml.Node) bool {
	if !isSame(before, after) || len(before.Content) != len(after.Content) {
		return false
	}
	for i := range before.Content {
		if !equalNodes(before.Content[i], after.Content[i]) {
			return false
		}
	}
	return true
}
