package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// screen prints numbered steps with their times. Colour only on a terminal.
type screen struct {
	out     io.Writer
	colour  bool
	steps   int
	number  int
	begun   time.Time
	started time.Time
}

// The escape sequences that the screen uses.
const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	cyan  = "\x1b[36m"
	plain = "\x1b[m"
)

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &screen{out: out, colour: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", begun: time.Now()}
}

func (s *screen) paint(colour, text string) string {
	if !s.colour {
		return text
	}
	return colour + text + plain
}

// step begins the next step.
func (s *screen) step(text string) {
	s.number++
	s.started = time.Now()
	s.print("\n" + s.paint(bold, fmt.Sprintf("[%d/%d] ", s.number, s.steps)+text))
}

// done ends the step.
func (s *screen) done() { s.print(s.paint(dim, "      done in "+seconds(time.Since(s.started)))) }

// say prints text, indented under its step.
func (s *screen) say(format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
	for line := range strings.SplitSeq(text, "\n") {
		s.print("      " + line)
	}
}

// command shows what is run, as the user would type it.
func (s *screen) command(line string) { s.say("%s", s.paint(cyan, "$ "+line)) }

// diff prints a unified diff, its lines coloured.
func (s *screen) diff(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
			line = s.paint(bold, line)
		case strings.HasPrefix(line, "@@"):
			line = s.paint(cyan, line)
		case strings.HasPrefix(line, "+"):
			line = s.paint(green, line)
		case strings.HasPrefix(line, "-"):
			line = s.paint(red, line)
		}
		s.print("      " + line)
	}
}

// print drops what a full pipe or a closed terminal does not take.
func (s *screen) print(line string) { _, _ = fmt.Fprintln(s.out, strings.TrimRight(line, " ")) }

// Write prints what a program says, a line at a time, indented.
func (s *screen) Write(data []byte) (int, error) {
	s.say("%s", data)
	return len(data), nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
