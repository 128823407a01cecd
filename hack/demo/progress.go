package main

import (
	"bytes"
	"strings"
	"time"
)

// reportInterval is how often a long build reports its progress.
const reportInterval = 10 * time.Second

// buildProgress turns the output of `go build -v` into a line every reportInterval. It
// collects the lines that are not package names, for an error message.
type buildProgress struct {
	screen            *screen
	name              string
	started, reported time.Time
	packages          int
	partial           []byte // a line that has not ended
	errorLines        []string
}

// Write implements io.Writer.
func (b *buildProgress) Write(data []byte) (int, error) {
	b.partial = append(b.partial, data...)
	for {
		line, rest, found := bytes.Cut(b.partial, []byte("\n"))
		if !found {
			return len(data), nil
		}
		b.partial = rest
		b.line(string(line))
	}
}

func (b *buildProgress) line(line string) {
	switch {
	case strings.HasPrefix(line, "go: downloading "):
	case strings.ContainsAny(line, " \t:#"):
		b.errorLines = append(b.errorLines, line)
		return
	default:
		b.packages++
	}
	if time.Since(b.reported) < reportInterval {
		return
	}
	b.reported = time.Now()
	b.screen.printf("%s: %s, %d packages compiled, at %s", b.name, time.Since(b.started).Round(time.Second), b.packages, strings.TrimPrefix(line, "go: "))
}
