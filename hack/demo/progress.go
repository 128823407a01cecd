package main

import (
	"bytes"
	"strings"
	"time"
)

// tellEvery is how often a long build says where it is.
const tellEvery = 10 * time.Second

// narrator turns what `go build -v` prints into a line every now and then, and
// keeps what is no package's name for an error.
type narrator struct {
	screen      *screen
	name        string
	begun, told time.Time
	packages    int
	rest        []byte
	complaints  []string
}

// Write implements io.Writer.
func (n *narrator) Write(data []byte) (int, error) {
	n.rest = append(n.rest, data...)
	for {
		line, rest, whole := bytes.Cut(n.rest, []byte("\n"))
		if !whole {
			return len(data), nil
		}
		n.rest = rest
		n.line(string(line))
	}
}

func (n *narrator) line(line string) {
	switch {
	case strings.HasPrefix(line, "go: downloading "):
	case strings.ContainsAny(line, " \t:#"):
		n.complaints = append(n.complaints, line)
		return
	default:
		n.packages++
	}
	if time.Since(n.told) < tellEvery {
		return
	}
	n.told = time.Now()
	n.screen.say("%s: %s, %d packages compiled, at %s", n.name, time.Since(n.begun).Round(time.Second), n.packages, strings.TrimPrefix(line, "go: "))
}
