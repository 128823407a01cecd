package manifest

import (
	"slices"

	"github.com/pmezard/go-difflib/difflib"
)

// opCodes returns the operations that turn the lines before into the lines after. If
// the edits are known, it compares only their lines: a comparison of all lines of a
// List with some ten thousand takes minutes.
func opCodes(before, after []string, edits []textEdit) []difflib.OpCode {
	if codes, ok := opCodesFromEdits(before, after, edits); ok {
		return mergeAdjacent(codes)
	}
	return diffLines(before, after)
}

func diffLines(before, after []string) []difflib.OpCode {
	return difflib.NewMatcherWithJunk(before, after, false, nil).GetOpCodes()
}

// opCodesFromEdits converts edits into opcodes. ok is false if the edits do not turn
// before into after, as at the end of a file without a final line break.
func opCodesFromEdits(before, after []string, edits []textEdit) (codes []difflib.OpCode, ok bool) {
	i, j := 0, 0
	addEqual := func(until int) bool {
		n := until - i
		if n < 0 || until > len(before) || j+n > len(after) || !slices.Equal(before[i:until], after[j:j+n]) {
			return false
		}
		if n > 0 {
			codes = append(codes, difflib.OpCode{Tag: 'e', I1: i, I2: until, J1: j, J2: j + n})
		}
		i, j = until, j+n
		return true
	}
	for _, e := range edits {
		if !addEqual(e.begin-1) || e.end-1 > len(before) || j+len(e.lines) > len(after) {
			return nil, false
		}
		for _, c := range diffLines(before[i:e.end-1], after[j:j+len(e.lines)]) {
			codes = append(codes, difflib.OpCode{Tag: c.Tag, I1: c.I1 + i, I2: c.I2 + i, J1: c.J1 + j, J2: c.J2 + j})
		}
		i, j = e.end-1, j+len(e.lines)
	}
	return codes, len(edits) > 0 && addEqual(len(before)) && j == len(after)
}

// mergeAdjacent merges adjacent opcodes that are all changes or all unchanged.
func mergeAdjacent(codes []difflib.OpCode) []difflib.OpCode {
	var out []difflib.OpCode
	for _, c := range codes {
		if n := len(out); n > 0 && (out[n-1].Tag == 'e') == (c.Tag == 'e') {
			if c.Tag != 'e' {
				out[n-1].Tag = 'r'
			}
			out[n-1].I2, out[n-1].J2 = c.I2, c.J2
			continue
		}
		out = append(out, c)
	}
	return out
}

// groupHunks groups opcodes into hunks with contextLines unchanged lines around each.
func groupHunks(codes []difflib.OpCode) [][]difflib.OpCode {
	var groups [][]difflib.OpCode
	var group []difflib.OpCode
	for n, c := range codes {
		if c.Tag != 'e' {
			group = append(group, c)
			continue
		}
		last := n == len(codes)-1
		head, tail := c, c
		head.I2, head.J2 = min(c.I2, c.I1+contextLines), min(c.J2, c.J1+contextLines)
		tail.I1, tail.J1 = max(c.I1, c.I2-contextLines), max(c.J1, c.J2-contextLines)
		switch {
		case len(group) == 0:
			group = append(group, tail)
		case last:
			group = append(group, head)
		case c.I2-c.I1 <= 2*contextLines:
			group = append(group, c)
		default:
			groups = append(groups, append(group, head))
			group = []difflib.OpCode{tail}
		}
	}
	if slices.ContainsFunc(group, func(c difflib.OpCode) bool { return c.Tag != 'e' }) {
		groups = append(groups, group)
	}
	return groups
}
