package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// screen prints numbered steps with their duration, in colour on a terminal.
type screen struct {
	out         io.Writer
	colour      bool
	steps       int
	number      int // of the current step
	started     time.Time
	stepStarted time.Time
}

// The escape sequences that the screen uses.
const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	cyan  = "\x1b[36m"
	reset = "\x1b[m"
)

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &screen{out: out, colour: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", started: time.Now()}
}

// colorize puts text in a colour, on a terminal.
func (s *screen) colorize(colour, text string) string {
	if !s.colour {
		return text
	}
	return colour + text + reset
}

// step begins the next step.
func (s *screen) step(text string) {
	s.number++
	s.stepStarted = time.Now()
	s.println("\n" + s.colorize(bold, fmt.Sprintf("[%d/%d] ", s.number, s.steps)+text))
}

// stepDone ends the step and prints its duration.
func (s *screen) stepDone() {
	s.println(s.colorize(dim, "      done in "+seconds(time.Since(s.stepStarted))))
}

// printf prints text, indented under its step.
func (s *screen) printf(format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
	for line := range strings.SplitSeq(text, "\n") {
		s.println("      " + line)
	}
}

// command shows a command line as the user would type it.
func (s *screen) command(line string) { s.printf("%s", s.colorize(cyan, "$ "+line)) }

// diff prints a unified diff in colour.
func (s *screen) diff(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
			line = s.colorize(bold, line)
		case strings.HasPrefix(line, "@@"):
			line = s.colorize(cyan, line)
		case strings.HasPrefix(line, "+"):
			line = s.colorize(green, line)
		case strings.HasPrefix(line, "-"):
			line = s.colorize(red, line)
		}
		s.println("      " + line)
	}
}

// println prints a line. It ignores errors, as of a closed terminal.
func (s *screen) println(line string) { _, _ = fmt.Fprintln(s.out, strings.TrimRight(line, " ")) }

// Write prints the output of a program, indented.
func (s *screen) Write(data []byte) (int, error) {
	s.printf("%s", data)
	return len(data), nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
