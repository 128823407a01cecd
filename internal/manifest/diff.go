package manifest

import (
	"bytes"
	"fmt"
	"strings"
)

// contextLines are the unchanged lines around a change that a diff shows.
const contextLines = 3

// Diff shows what was edited as a unified diff that patch(1) can apply: one
// section per document that changed, with the line numbers of its source.
func (r Result) Diff(colour bool) []byte {
	out := diffWriter{colour: colour}
	for _, d := range r.Documents {
		if d.Changed() {
			out.document(d)
		}
	}
	return out.Bytes()
}

type diffWriter struct {
	bytes.Buffer
	colour bool
}

// The escape sequences that git colours a diff with.
const (
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	cyan  = "\x1b[36m"
	plain = "\x1b[m"
)

func (w *diffWriter) line(colour, text string) {
	text, broken := strings.CutSuffix(text, "\n")
	if w.colour && colour != "" {
		text = colour + text + plain
	}
	w.WriteString(text + "\n")
	if !broken {
		w.WriteString("\\ No newline at end of file\n")
	}
}

func (w *diffWriter) document(d Document) {
	// A tab ends the file's name for patch(1).
	about := fmt.Sprintf("%s\tdocument %d (%s)\n", d.Source, d.Number, d.Title)
	w.line(bold, "--- "+about)
	w.line(bold, "+++ "+about)
	before, after := linesOf(d.whole(d.Before)), linesOf(d.whole(d.After))
	for _, group := range grouped(opCodes(before, after, d.edits)) {
		first, last := group[0], group[len(group)-1]
		offset := d.Line - 1
		w.line(cyan, fmt.Sprintf("@@ -%s +%s @@\n", span(first.I1, last.I2, offset), span(first.J1, last.J2, offset)))
		for _, op := range group {
			if op.Tag == 'e' {
				for _, l := range before[op.I1:op.I2] {
					w.line("", " "+l)
				}
				continue
			}
			for _, l := range before[op.I1:op.I2] {
				w.line(red, "-"+l)
			}
			for _, l := range after[op.J1:op.J2] {
				w.line(green, "+"+l)
			}
		}
	}
}

// whole completes a document's first and last line: JSON need not start and
// end with one.
func (d Document) whole(text []byte) []byte {
	lead := d.Prefix[bytes.LastIndexByte(d.Prefix, '\n')+1:]
	trail := d.Suffix[:bytes.IndexByte(d.Suffix, '\n')+1]
	if len(text) > 0 && text[len(text)-1] == '\n' {
		trail = nil
	}
	return join(join(lead, text), trail)
}

// span is a range of lines as a hunk's head writes it.
func span(from, to, offset int) string {
	if from == to {
		return fmt.Sprintf("%d,0", from+offset)
	}
	return fmt.Sprintf("%d,%d", from+1+offset, to-from)
}

// linesOf cuts text into lines that keep their line breaks.
func linesOf(text []byte) []string {
	lines := strings.SplitAfter(string(text), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
