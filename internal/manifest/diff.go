package manifest

import (
	"bytes"
	"fmt"
	"strings"

	udiff "github.com/aymanbagabas/go-udiff"
)

// Diff returns the edits as a unified diff that patch(1) and git apply can apply. It has
// one section per changed source, because the context of a hunk can reach into the next
// document.
func (r Result) Diff(colour bool) ([]byte, error) {
	out := diffWriter{colour: colour}
	for first := 0; first < len(r.Documents); {
		next := first + 1
		for next < len(r.Documents) && !r.Documents[next].startsSource {
			next++
		}
		if err := out.writeSource(r.Documents[first:next]); err != nil {
			return nil, fmt.Errorf("%s: diff: %w", r.Documents[first].Source, err)
		}
		first = next
	}
	return out.Bytes(), nil
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

// writeSource writes the diff of the documents of one source.
func (w *diffWriter) writeSource(documents []Document) error {
	var source strings.Builder
	var edits []udiff.Edit
	for _, d := range documents {
		source.Write(d.Prefix)
		for _, e := range d.edits {
			edits = append(edits, udiff.Edit{Start: e.Start + source.Len(), End: e.End + source.Len(), New: e.New})
		}
		source.Write(d.Before)
		source.Write(d.Suffix)
	}
	name := documents[0].Source
	unified, err := udiff.ToUnifiedDiff(name, name, source.String(), lineEdits(source.String(), edits), udiff.DefaultContextLines)
	if err != nil || len(unified.Hunks) == 0 {
		return err
	}
	if strings.ContainsAny(name, " \t") {
		name += "\t" // a tab ends a file name with blanks
	}
	w.writeLine(bold, "--- "+name+"\n")
	w.writeLine(bold, "+++ "+name+"\n")
	for _, hunk := range unified.Hunks {
		w.writeHunk(hunk, documents)
	}
	return nil
}

// lineEdits converts edits into edits of whole lines, and leaves out lines that stay the
// same.
func lineEdits(source string, edits []udiff.Edit) []udiff.Edit {
	var out []udiff.Edit
	for i := 0; i < len(edits); {
		start := strings.LastIndexByte(source[:edits[i].Start], '\n') + 1
		var after strings.Builder
		pos, end := start, start
		for first := true; i < len(edits) && (first || edits[i].Start < end || end == len(source)); first = false {
			after.WriteString(source[pos:edits[i].Start])
			after.WriteString(edits[i].New)
			pos = edits[i].End
			end = len(source)
			if n := strings.IndexByte(source[pos:], '\n'); n >= 0 {
				end = pos + n + 1
			}
			i++
		}
		after.WriteString(source[pos:end])
		for _, e := range udiff.Lines(source[start:end], after.String()) {
			out = append(out, udiff.Edit{Start: e.Start + start, End: e.End + start, New: e.New})
		}
	}
	return out
}

// writeHunk writes one hunk. Its heading names the document of the first change.
func (w *diffWriter) writeHunk(hunk *udiff.Hunk, documents []Document) {
	removed, added, first := 0, 0, -1
	for i, l := range hunk.Lines {
		if l.Kind != udiff.Insert {
			removed++
		}
		if l.Kind != udiff.Delete {
			added++
		}
		if first < 0 && l.Kind != udiff.Equal {
			first = hunk.FromLine + i
		}
	}
	heading := fmt.Sprintf("@@ -%d,%d +%d,%d @@", hunk.FromLine, removed, hunk.ToLine, added)
	name := ""
	for _, d := range documents {
		if d.Line <= first && d.Changed() {
			name = d.DisplayName
		}
	}
	w.writeLine(cyan, strings.TrimRight(heading+" "+name, " ")+"\n")
	for _, l := range removedFirst(hunk.Lines) {
		switch l.Kind {
		case udiff.Delete:
			w.writeLine(red, "-"+l.Content)
		case udiff.Insert:
			w.writeLine(green, "+"+l.Content)
		default:
			w.writeLine("", " "+l.Content)
		}
	}
}

// removedFirst sorts the lines between two unchanged ones: the removed lines, then the
// added ones.
func removedFirst(lines []udiff.Line) []udiff.Line {
	var out, added []udiff.Line
	for _, l := range lines {
		if l.Kind == udiff.Insert {
			added = append(added, l)
			continue
		}
		if l.Kind == udiff.Equal {
			out, added = append(out, added...), nil
		}
		out = append(out, l)
	}
	return append(out, added...)
}
