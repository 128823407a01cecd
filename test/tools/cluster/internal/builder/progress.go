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
func (n *progressReporter) read(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		n.line(lines.Text())
	}
	// A line that is longer than the buffer ends the scan. Read the rest, or the go
	// command blocks.
	_, _ = io.Copy(io.Discard, stderr)
}

func (n *progressReporter) line(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case strings.HasPrefix(line, "go: downloading "):
		n.downloads++
		n.current = strings.TrimPrefix(line, "go: ")
	case isPackage(line):
		n.packages++
		n.current = line
	default:
		n.errorLines = append(n.errorLines, line)
		if len(n.errorLines) > maxErrorLines {
			n.errorLines = n.errorLines[1:]
		}
	}
}

// isPackage reports whether a line is an import path and not a message.
func isPackage(line string) bool {
	return line != "" && !strings.ContainsAny(line, " \t:#")
}

// report prints the progress of the build.
func (n *progressReporter) report(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _ = fmt.Fprintf(n.out, "%s: %s, %s\n", n.label, n.elapsed(now), n.summary())
}

func (n *progressReporter) summary() string {
	var parts []string
	if n.downloads > 0 {
		parts = append(parts, fmt.Sprintf("%d modules downloaded", n.downloads))
	}
	parts = append(parts, fmt.Sprintf("%d packages compiled", n.packages))
	if n.current != "" {
		parts = append(parts, "at "+n.current)
	}
	return strings.Join(parts, ", ")
}

func (n *progressReporter) elapsed(now time.Time) time.Duration {
	return now.Sub(n.start).Round(time.Second)
}

// lastErrors returns the last lines that are neither packages nor downloads.
func (n *progressReporter) lastErrors() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.errorLines, "\n")
}
