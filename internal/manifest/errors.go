package manifest

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// fieldError is an error in a field of a document. It holds the path as keys, so that
// the line of the field can be found.
type fieldError struct {
	keys []string
	text string
}

func (e *fieldError) Error() string {
	if len(e.keys) == 0 {
		return e.text
	}
	return fieldPath(e.keys) + ": " + e.text
}

// fieldPath writes keys as Kubernetes does: spec.containers[0].env. Keys that are not
// identifiers are in brackets too.
func fieldPath(keys []string) string {
	var b strings.Builder
	for _, key := range keys {
		_, err := parseIndex(key)
		switch {
		case err == nil, strings.ContainsAny(key, "./[] "):
			b.WriteString("[" + key + "]")
		case b.Len() > 0:
			b.WriteString("." + key)
		default:
			b.WriteString(key)
		}
	}
	return b.String()
}

// lineError is an error with a line, counted from 1 at the first line of the
// document's body. The line is zero if it is unknown.
type lineError struct {
	line int
	text string
}

func (e *lineError) Error() string { return e.text }

// parserPrefix matches the line number in an error of the YAML library, which has it only
// in the text.
var parserPrefix = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

func newLineError(err error) error {
	text := err.Error()
	at := parserPrefix.FindStringSubmatch(text)
	line, _ := strconv.Atoi(at[1])
	return &lineError{line: line, text: "does not parse: " + strings.TrimPrefix(text, at[0])}
}

// withLine sets the line of every error that is joined in err.
func withLine(line int, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return &lineError{line: line, text: err.Error()}
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, withLine(line, e))
	}
	return errors.Join(errs...)
}

// wrapError puts file, line, document and workload in front of every error in err.
func (d *parsedDocument) wrapError(name string, err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, d.wrapError(name, e))
		}
		return errors.Join(errs...)
	}
	position := d.source + ":" + strconv.Itoa(d.lineOf(err))
	document := fmt.Sprintf("document %d", d.number)
	if name != "" {
		document += " (" + name + ")"
	}
	return fmt.Errorf("%s: %s: %w", position, document, err)
}

// lineOf returns the line in the source that an error refers to. It is the line of
// the document if the error refers to none.
func (d *parsedDocument) lineOf(err error) int {
	line := 1
	var lineErr *lineError
	var fieldErr *fieldError
	switch {
	case errors.As(err, &lineErr) && lineErr.line > 0:
		line = lineErr.line
	case errors.As(err, &fieldErr) && d.root != nil:
		line = max(1, nodeAt(d.root, fieldErr.keys).Line)
	}
	return d.sourceLine(line)
}

// sourceLine converts a line of the parser, which counts more line breaks than editors do,
// into a line of the source.
func (d *parsedDocument) sourceLine(line int) int {
	starts := d.lines().starts
	return d.raw.line + countLines(d.raw.body[:starts[min(line, len(starts))-1]])
}
