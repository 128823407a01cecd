package page

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	blanks      = regexp.MustCompile(`[ \t]+`)
	placeholder = regexp.MustCompile(`⟨[^⟩]*⟩`)
)

// Match is nil where a text is what was expected.
func Match(want, got string) error {
	wanted, lines := split(want), split(got)
	if match(wanted, lines) {
		return nil
	}
	return fmt.Errorf("expected:\n%s\nprinted:\n%s", strings.Join(wanted, "\n"), strings.Join(lines, "\n"))
}

// split returns the lines without empty ones at both ends, blanks made one.
func split(text string) []string {
	var lines []string
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		lines = append(lines, strings.TrimSpace(blanks.ReplaceAllString(strings.TrimRight(line, "\r\n"), " ")))
	}
	return lines
}

func match(wanted, lines []string) bool {
	if len(wanted) == 0 {
		return len(lines) == 0
	}
	if wanted[0] == "..." {
		for skipped := 0; skipped <= len(lines); skipped++ {
			if match(wanted[1:], lines[skipped:]) {
				return true
			}
		}
		return false
	}
	return len(lines) > 0 && same(wanted[0], lines[0]) && match(wanted[1:], lines[1:])
}

func same(want, line string) bool {
	var pattern strings.Builder
	at, end := 0, "$"
	if begin, ok := strings.CutSuffix(want, "..."); ok {
		want, end = begin, ""
	}
	for _, found := range placeholder.FindAllStringIndex(want, -1) {
		pattern.WriteString(regexp.QuoteMeta(want[at:found[0]]) + `\S+`)
		at = found[1]
	}
	pattern.WriteString(regexp.QuoteMeta(want[at:]))
	return regexp.MustCompile("^" + pattern.String() + end).MatchString(line)
}
