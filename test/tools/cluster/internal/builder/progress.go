package builder

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// keptLines is how much of what the go command says is shown when it fails.
const keptLines = 40

// narrator turns what `go build -v` prints into a line every now and then.
type narrator struct {
	out   io.Writer
	label string
	start time.Time

	mu         sync.Mutex
	packages   int
	downloads  int
	current    string
	complaints []string
}

// read takes the go command's standard error: a package's name when it was
// compiled, "go: downloading ..." for a module, and complaints.
func (n *narrator) read(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		n.line(lines.Text())
	}
	// A line beyond the buffer ends the scan; the go command must not block.
	_, _ = io.Copy(io.Discard, stderr)
}

func (n *narrator) line(line string) {
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
		n.complaints = append(n.complaints, line)
		if len(n.complaints) > keptLines {
			n.complaints = n.complaints[1:]
		}
	}
}

// isPackage tells an import path from a sentence.
func isPackage(line string) bool {
	return line != "" && !strings.ContainsAny(line, " \t:#")
}

// tell prints where the build stands.
func (n *narrator) tell(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _ = fmt.Fprintf(n.out, "%s: %s, %s\n", n.label, n.elapsed(now), n.tally())
}

func (n *narrator) tally() string {
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

func (n *narrator) elapsed(now time.Time) time.Duration {
	return now.Sub(n.start).Round(time.Second)
}

// said returns what the go command complained about, for an error.
func (n *narrator) said() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.complaints, "\n")
}
