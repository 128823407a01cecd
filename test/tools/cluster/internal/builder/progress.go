package builder

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// maxErrorLines is how much of what the go command says is shown when it fails.
const maxErrorLines = 40

// progressReporter turns what `go build -v` prints into a line every now and then.
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

// read takes the go command's standard error: a package's name when it was
// compiled, "go: downloading ..." for a module, and complaints.
func (n *progressReporter) read(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		n.line(lines.Text())
	}
	// A line beyond the buffer ends the scan; the go command must not block.
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

// isPackage tells an import path from a sentence.
func isPackage(line string) bool {
	return line != "" && !strings.ContainsAny(line, " \t:#")
}

// report prints where the build stands.
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

// lastErrors returns what the go command complained about, for an error.
func (n *progressReporter) lastErrors() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.errorLines, "\n")
}
