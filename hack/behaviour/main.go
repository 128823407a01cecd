// Behaviour compares what Isthmus does at two commits: manifests that the command
// line injects, reverts and adopts, the rendered chart, and golden files. A
// refactoring must leave all of them as they are. Objects are compared after
// parsing, and the wording of messages is ignored.
//
//	go run ./hack/behaviour --base v0.1.0 --helm "$(go -C test/tools/cluster run . bin helm)"
//
// It prints how many results it compared and every difference, and exits with
// status 1 if there is one.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	base := flag.String("base", "HEAD~1", "commit to compare the working tree with")
	helm := flag.String("helm", "helm", "path of Helm; empty skips the chart")
	inputs := flag.String("inputs", "", "more folders with manifests, separated by commas")
	flag.Parse()
	os.Exit(exitStatus(*base, *helm, strings.FieldsFunc(*inputs, func(r rune) bool { return r == ',' })))
}

// exitStatus is 0 if nothing differs, 1 if something does, and 2 after an error.
func exitStatus(base, helm string, more []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	same, err := run(ctx, base, helm, more)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "behaviour:", err)
		return 2
	case !same:
		return 1
	}
	return 0
}

// tree is a checkout with the program built from it.
type tree struct{ folder, program string }

// run compares the working tree with a commit, and reports whether nothing differs.
func run(ctx context.Context, base, helm string, more []string) (same bool, err error) {
	toplevel, err := output(ctx, "", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return false, err
	}
	folder := strings.TrimSpace(toplevel)
	temporary, err := os.MkdirTemp("", "isthmus-behaviour-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()
	before := tree{folder: filepath.Join(temporary, "base"), program: filepath.Join(temporary, "isthmus-before")}
	after := tree{folder: folder, program: filepath.Join(temporary, "isthmus-after")}
	if _, err := output(ctx, folder, "git", "worktree", "add", "--detach", before.folder, base); err != nil {
		return false, err
	}
	defer func() {
		_, removed := output(context.WithoutCancel(ctx), folder, "git", "worktree", "remove", "--force", before.folder)
		err = errors.Join(err, removed)
	}()
	for _, t := range []tree{before, after} {
		progress("building the program in %s", t.folder)
		if _, err := output(ctx, t.folder, "go", "build", "-buildvcs=false", "-o", t.program, "./cmd/isthmus"); err != nil {
			return false, err
		}
	}
	r := &report{}
	if err := compareManifests(ctx, r, before, after, more); err != nil {
		return false, err
	}
	if helm != "" {
		if err := compareChart(ctx, r, helm, before, after); err != nil {
			return false, err
		}
	}
	if err := compareGoldens(ctx, r, base, before, after); err != nil {
		return false, err
	}
	return r.print(os.Stdout), nil
}

// report counts what was compared, by kind, and keeps the differences.
type report struct {
	kinds       []string
	compared    map[string]int
	differences map[string]int
	lines       []string
}

func (r *report) add(kind, name string, difference string) {
	if r.compared == nil {
		r.compared, r.differences = map[string]int{}, map[string]int{}
	}
	if r.compared[kind] == 0 {
		r.kinds = append(r.kinds, kind)
	}
	r.compared[kind]++
	if difference != "" {
		r.differences[kind]++
		r.lines = append(r.lines, kind+": "+name+": "+difference)
	}
}

// print writes the report and reports whether it holds no difference.
func (r *report) print(to *os.File) bool {
	for _, line := range r.lines {
		fmt.Fprintln(to, line)
	}
	for _, kind := range r.kinds {
		fmt.Fprintf(to, "%-28s %5d compared, %d differ\n", kind, r.compared[kind], r.differences[kind])
	}
	return len(r.lines) == 0
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

// output runs a program in a folder and returns its standard output.
func output(ctx context.Context, folder, program string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = folder, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// quote renders a value in one line of at most 300 characters.
func quote(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	if len(data) > 300 {
		return strings.ToValidUTF8(string(data[:300]), "") + "..."
	}
	return string(data)
}
