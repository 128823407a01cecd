package manifest

import (
	"bytes"
	"fmt"
	"strings"
)

// contextLines is the number of unchanged lines that a diff shows around a change.
const contextLines = 3

// Diff returns the edits as a unified diff that patch(1) can apply. It has one section
// per changed document, with the line numbers of its source.
func (r Result) Diff(colour bool) []byte {
	out := diffWriter{colour: colour}
	for _, d := range r.Documents {
		if d.Changed() {
			out.writeDocument(d)
		}
	}
	return out.Bytes()
}

type diffWriter struct {
	bytes.Buffer
	colour bool
}

// Escape sequences of the colours that git uses in a diff.
const (
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	cyan  = "\x1b[36m"
	reset = "\x1b[m"
)

func (w *diffWriter) writeLine(colour, text string) {
	text, hasNewline := strings.CutSuffix(text, "\n")
	if w.colour && colour != "" {
		text = colour + text + reset
	}
	w.WriteString(text + "\n")
	if !hasNewline {
		w.WriteString("\\ No newline at end of file\n")
	}
}

func (w *diffWriter) writeDocument(d Document) {
	// For patch(1), a tab ends the file name.
	name := fmt.Sprintf("%s\tdocument %d (%s)\n", d.Source, d.Number, d.DisplayName)
	w.writeLine(bold, "--- "+name)
	w.writeLine(bold, "+++ "+name)
	before, after := splitLines(d.withFullLines(d.Before)), splitLines(d.withFullLines(d.After))
	for _, group := range groupHunks(opCodes(before, after, d.edits)) {
		first, last := group[0], group[len(group)-1]
		offset := d.Line - 1
		w.writeLine(cyan, fmt.Sprintf("@@ -%s +%s @@\n", hunkRange(first.I1, last.I2, offset), hunkRange(first.J1, last.J2, offset)))
		for _, op := range group {
			if op.Tag == 'e' {
				for _, l := range before[op.I1:op.I2] {
					w.writeLine("", " "+l)
				}
				continue
			}
			for _, l := range before[op.I1:op.I2] {
				w.writeLine(red, "-"+l)
			}
			for _, l := range after[op.J1:op.J2] {
				w.writeLine(green, "+"+l)
			}
		}
	}
}

// withFullLines completes the first and the last line of a document. A JSON document
// can start and end in the middle of a line.
func (d Document) withFullLines(text []byte) []byte {
	before := d.Prefix[bytes.LastIndexByte(d.Prefix, '\n')+1:]
	after := d.Suffix[:bytes.IndexByte(d.Suffix, '\n')+1]
	if len(text) > 0 && text[len(text)-1] == '\n' {
		after = nil
	}
	return concat(concat(before, text), after)
}

// hunkRange formats a range of lines for the header of a hunk.
func hunkRange(from, to, offset int) string {
	if from == to {
		return fmt.Sprintf("%d,0", from+offset)
	}
	return fmt.Sprintf("%d,%d", from+1+offset, to-from)
}

// splitLines splits text into lines that keep their line breaks.
func splitLines(text []byte) []string {
	lines := strings.SplitAfter(string(text), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
