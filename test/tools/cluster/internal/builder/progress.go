package builder

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// maxErrorLines limits how many lines of the go command's output an error shows.
const maxErrorLines = 40

// progressReporter summarizes the output of `go build -v` as lines of progress.
type progressReporter struct {
	out   io.Writer
	label string
	start time.Time

	mu         sync.Mutex
	packages   int
	downloads  int
	current    string
	errorLines []string
}

// read reads the go command's standard error: the name of each compiled package,
// "go: downloading ..." for a module, and error messages.
func (p *progressReporter) read(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.line(lines.Text())
	}
	// A line that is longer than the buffer ends the scan. Read the rest, or the go
	// command blocks.
	_, _ = io.Copy(io.Discard, stderr)
}

func (p *progressReporter) line(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case strings.HasPrefix(line, "go: downloading "):
		p.downloads++
		p.current = strings.TrimPrefix(line, "go: ")
	case isPackage(line):
		p.packages++
		p.current = line
	default:
		p.errorLines = append(p.errorLines, line)
		if len(p.errorLines) > maxErrorLines {
			p.errorLines = p.errorLines[1:]
		}
	}
}

// isPackage reports whether a line is an import path and not a message.
func isPackage(line string) bool {
	return line != "" && !strings.ContainsAny(line, " \t:#")
}

// report prints the progress of the build.
func (p *progressReporter) report(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, "%s: %s, %s\n", p.label, p.elapsed(now), p.summary())
}

func (p *progressReporter) summary() string {
	var parts []string
	if p.downloads > 0 {
		parts = append(parts, fmt.Sprintf("%d modules downloaded", p.downloads))
	}
	parts = append(parts, fmt.Sprintf("%d packages compiled", p.packages))
	if p.current != "" {
		parts = append(parts, "at "+p.current)
	}
	return strings.Join(parts, ", ")
}

func (p *progressReporter) elapsed(now time.Time) time.Duration {
	return now.Sub(p.start).Round(time.Second)
}

// lastErrors returns the last lines that are neither packages nor downloads.
func (p *progressReporter) lastErrors() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.errorLines, "\n")
}
