// Command testsummary turns the output of `go test -json` on its standard input into a
// summary for people: a line for each package, the output of failed tests, and the number
// of tests that passed, failed and were skipped. It prints other input as it is. It fails
// when a test failed, and when no test ran.
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
	flag.Func("logs", "also print the logs of passed tests, in packages whose path matches this regular `expression`", func(text string) (err error) {
		logs, err = regexp.Compile(text)
		return err
	})
	flag.Parse()
	s := summary{out: os.Stdout, logs: logs, outputs: map[testKey][]string{}, failures: map[string]int{}}
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(1)
	}
	if !s.finish() {
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

// testKey identifies a test; the empty test is the package itself.
type testKey struct{ pkg, test string }

type summary struct {
	out io.Writer
	// logs matches the paths of the packages whose logs are printed; nil matches none.
	logs                    *regexp.Regexp
	passed, failed, skipped int
	// outputs is the output of the tests that are still running.
	outputs map[testKey][]string
	// failures counts the failed tests of each package. A package that fails without a
	// failed test did not compile, or exited before its tests.
	failures map[string]int
}

func (s *summary) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			s.handleLine(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// handleLine handles an event, and prints a line that is not an event.
func (s *summary) handleLine(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		s.print(line)
		return
	}
	test := testKey{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		s.print(e.Output)
	case "output":
		if e.Test == "" {
			s.printResult(e.Output)
			return
		}
		s.outputs[test] = append(s.outputs[test], e.Output)
	case "pass", "skip", "fail":
		s.countResult(e.Action, test)
	}
}

// printResult prints the line about a package: "ok", "FAIL" or "no test files".
func (s *summary) printResult(output string) {
	if output != "PASS\n" {
		s.print(output)
	}
}

// countResult counts a test that has ended, and prints the output of a failed one.
func (s *summary) countResult(action string, t testKey) {
	defer delete(s.outputs, t)
	switch {
	case t.test == "" && action == "fail" && s.failures[t.pkg] == 0:
		s.failed++
	case t.test == "":
	case action == "pass":
		s.passed++
		s.printLogs(t)
	case action == "skip":
		s.skipped++
	case action == "fail":
		s.failed++
		s.failures[t.pkg]++
		for _, output := range s.outputs[t] {
			s.print(output)
		}
	}
}

// printLogs prints the logs of a passed test, if they are wanted.
func (s *summary) printLogs(t testKey) {
	if s.logs == nil || !s.logs.MatchString(t.pkg) {
		return
	}
	for _, output := range s.outputs[t] {
		if !strings.HasPrefix(output, "===") && !strings.HasPrefix(strings.TrimSpace(output), "---") {
			s.print(t.test + ": " + strings.TrimSpace(output) + "\n")
		}
	}
}

// finish prints the totals and reports whether tests ran and none failed.
func (s *summary) finish() bool {
	if s.skipped > 0 {
		s.print(fmt.Sprintf("%d skipped\n", s.skipped))
	}
	s.print(fmt.Sprintf("%d passed, %d failed\n", s.passed, s.failed))
	return s.failed == 0 && s.passed > 0
}

func (s *summary) print(text string) { _, _ = io.WriteString(s.out, text) }
