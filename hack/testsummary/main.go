// Command testsummary reads what `go test -json` prints, among whatever else is
// on its standard input, and shows it as people like to read it: a line for each
// package, the output of what failed, and at the end how many tests passed and
// failed. It fails when a test did, and when there was none.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	var logs *regexp.Regexp
	flag.Func("logs", "print what tests log although they pass, in packages whose path matches this `expression`", func(text string) (err error) {
		logs, err = regexp.Compile(text)
		return err
	})
	flag.Parse()
	s := summary{out: os.Stdout, logs: logs, outputs: map[key][]string{}, failures: map[string]int{}}
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(1)
	}
	if !s.close() {
		os.Exit(1)
	}
}

// event is a line of `go test -json`; see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
}

// key names a test; the empty test is the package itself.
type key struct{ pkg, test string }

type summary struct {
	out io.Writer
	// logs matches the path of packages whose logs are wanted; nil: none.
	logs                    *regexp.Regexp
	passed, failed, skipped int
	// outputs are what tests printed that have not ended yet.
	outputs map[key][]string
	// failures counts the failed tests of a package: one that fails without any
	// did not compile, or ended before its tests.
	failures map[string]int
}

func (s *summary) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			s.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line takes an event, or passes on what is none.
func (s *summary) line(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		s.print(line)
		return
	}
	at := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		s.print(e.Output)
	case "output":
		if e.Test == "" {
			s.result(e.Output)
			return
		}
		s.outputs[at] = append(s.outputs[at], e.Output)
	case "pass", "skip", "fail":
		s.ended(e.Action, at)
	}
}

// result prints a package's own line, "ok", "FAIL" or "no test files".
func (s *summary) result(output string) {
	if output != "PASS\n" {
		s.print(output)
	}
}

func (s *summary) ended(action string, at key) {
	defer delete(s.outputs, at)
	switch {
	case at.test == "" && action == "fail" && s.failures[at.pkg] == 0:
		s.failed++
	case at.test == "":
	case action == "pass":
		s.passed++
		s.log(at)
	case action == "skip":
		s.skipped++
	case action == "fail":
		s.failed++
		s.failures[at.pkg]++
		for _, output := range s.outputs[at] {
			s.print(output)
		}
	}
}

// log prints what a test logged, where that is wanted.
func (s *summary) log(at key) {
	if s.logs == nil || !s.logs.MatchString(at.pkg) {
		return
	}
	for _, output := range s.outputs[at] {
		if !strings.HasPrefix(output, "===") && !strings.HasPrefix(strings.TrimSpace(output), "---") {
			s.print(at.test + ": " + strings.TrimSpace(output) + "\n")
		}
	}
}

// close prints the last line and reports whether all is well.
func (s *summary) close() bool {
	if s.skipped > 0 {
		s.print(fmt.Sprintf("%d skipped\n", s.skipped))
	}
	s.print(fmt.Sprintf("%d passed, %d failed\n", s.passed, s.failed))
	return s.failed == 0 && s.passed > 0
}

func (s *summary) print(text string) { _, _ = io.WriteString(s.out, text) }
