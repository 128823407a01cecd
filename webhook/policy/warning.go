package policy

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// Warning is a message for the user that is not an error.
type Warning struct {
	// Code is short and stable, in kebab case. The status annotation records it.
	Code string
	// Text is one sentence for the user.
	Text string
}

// WarningPrefix precedes every warning in an answer to the API server.
const WarningPrefix = "isthmus: "

// Limits of warnings in characters.
const (
	// maxWarnings is the length of all warnings of a response, with their prefix: what
	// the API server keeps (truncateAtTotalRunes of its pkg/endpoints/filters).
	maxWarnings = 4096
	// maxWarning is the length of one text.
	maxWarning = 1024
	// omissionNote is the length that is kept free for the note on omitted warnings.
	omissionNote = 96
)

// BoundWarnings returns the warnings without duplicates, and as many of them as the
// API server keeps. If some are left out, or omitted were before, the last warning
// says how many.
func BoundWarnings(warnings []Warning, omitted int) []Warning {
	seen := make(map[Warning]bool, len(warnings))
	var out []Warning
	length := 0
	for _, w := range warnings {
		w.Text = Clip(w.Text, maxWarning)
		if seen[w] {
			continue
		}
		seen[w] = true
		n := utf8.RuneCountInString(WarningPrefix) + utf8.RuneCountInString(w.Text)
		if length+n > maxWarnings-omissionNote {
			omitted++
			continue
		}
		length += n
		out = append(out, w)
	}
	if omitted > 0 {
		out = append(out, Warning{"warnings-omitted", fmt.Sprintf("%d more warnings are left out, because Kubernetes keeps %d characters of all warnings", omitted, maxWarnings)})
	}
	return out
}

// WarningCodes returns the codes of warnings, each once, in the order of the
// warnings.
func WarningCodes(warnings []Warning) []string {
	var codes []string
	for _, w := range warnings {
		if !slices.Contains(codes, w.Code) {
			codes = append(codes, w.Code)
		}
	}
	return codes
}
