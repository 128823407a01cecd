package page

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	whitespace  = regexp.MustCompile(`[ \t]+`)
	placeholder = regexp.MustCompile(`⟨[^⟩]*⟩`)
)

// Match returns nil if got is the expected text; see the package for its patterns.
func Match(want, got string) error {
	wantLines, lines := normalizeLines(want), normalizeLines(got)
	if matchLines(wantLines, lines) {
		return nil
	}
	return fmt.Errorf("expected:\n%s\nprinted:\n%s", strings.Join(wantLines, "\n"), strings.Join(lines, "\n"))
}

// normalizeLines returns the lines of a text, without empty lines at both ends and with
// consecutive blanks replaced by one space.
func normalizeLines(text string) []string {
	var lines []string
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		lines = append(lines, strings.TrimSpace(whitespace.ReplaceAllString(strings.TrimRight(line, "\r\n"), " ")))
	}
	return lines
}

func matchLines(wantLines, lines []string) bool {
	if len(wantLines) == 0 {
		return len(lines) == 0
	}
	if wantLines[0] == "..." {
		for skipped := 0; skipped <= len(lines); skipped++ {
			if matchLines(wantLines[1:], lines[skipped:]) {
				return true
			}
		}
		return false
	}
	return len(lines) > 0 && matchLine(wantLines[0], lines[0]) && matchLines(wantLines[1:], lines[1:])
}

func matchLine(want, line string) bool {
	var pattern strings.Builder
	at, end := 0, "$"
	if begin, ok := strings.CutSuffix(want, "..."); ok {
		want, end = begin, ""
	}
	for _, location := range placeholder.FindAllStringIndex(want, -1) {
		pattern.WriteString(regexp.QuoteMeta(want[at:location[0]]) + `\S+`)
		at = location[1]
	}
	pattern.WriteString(regexp.QuoteMeta(want[at:]))
	return regexp.MustCompile("^" + pattern.String() + end).MatchString(line)
}
