package manifest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"gomodules.xyz/jsonpatch/v2"
)

// maxLostComments is how many lost comments a warning names.
const maxLostComments = 5

// describeLoss says that a document was encoded again as a whole, and which comments are
// not in the new text; empty if nothing is lost. If the patch removes something, its
// comments go with it and are not named.
func (d *parsedDocument) describeLoss(result Document, patch []jsonpatch.Operation) string {
	if d.root == nil || d.raw.isJSON || !result.Changed() {
		return ""
	}
	var lost []comment
	if !slices.ContainsFunc(patch, func(op jsonpatch.Operation) bool { return op.Operation == "remove" }) {
		lost = d.lostComments(result)
	}
	var parts []string
	if result.rewritten {
		parts = append(parts, "the layout does not allow an edit in place, so the document is encoded again as a whole")
	}
	for _, c := range lost[:min(len(lost), maxLostComments)] {
		parts = append(parts, fmt.Sprintf("line %d loses its comment %q", c.line, c.text))
	}
	if more := len(lost) - maxLostComments; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more comments are lost", more))
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d: %s", d.source, d.raw.line, strings.Join(parts, "; "))
}

type comment struct {
	line int
	text string
}

// lostComments returns the comments on replaced lines that are not in the new text.
func (d *parsedDocument) lostComments(result Document) []comment {
	known := map[string]bool{}
	var visit func(*yaml.Node)
	visit = func(n *yaml.Node) {
		for _, text := range []string{n.HeadComment, n.LineComment, n.FootComment} {
			for line := range strings.Lines(text) {
				known[strings.TrimSpace(line)] = true
			}
		}
		for _, c := range n.Content {
			visit(c)
		}
	}
	visit(d.root)
	left := strings.Split(string(result.After), "\n")
	var lost []comment
	number, end, edits := d.raw.line, 0, result.edits
	for line := range bytes.Lines(d.raw.body) {
		start := end
		end += len(line)
		text := strings.TrimSpace(string(line))
		if at := strings.IndexByte(text, '#'); at > 0 && !known[text] {
			text = findComment(text, known)
		}
		for len(edits) > 0 && edits[0].End <= start {
			edits = edits[1:]
		}
		replaced := result.rewritten || len(edits) > 0 && edits[0].New != "" && edits[0].Start < end
		if replaced && strings.HasPrefix(text, "#") && !takeLine(left, text) {
			lost = append(lost, comment{number, text})
		}
		number++
	}
	return lost
}

// findComment returns the comment behind a value; empty if there is none.
func findComment(line string, known map[string]bool) string {
	for at := range len(line) {
		if line[at] == '#' && strings.ContainsAny(line[at-1:at], " \t") && (known[line[at:]] || !strings.ContainsAny(line[at:], `"'`)) {
			return line[at:]
		}
	}
	return ""
}

// takeLine reports whether a line ends with a text, and clears the first one that does.
func takeLine(lines []string, text string) bool {
	for i, line := range lines {
		if strings.HasSuffix(strings.TrimRight(line, " \r"), text) {
			lines[i] = ""
			return true
		}
	}
	return false
}
