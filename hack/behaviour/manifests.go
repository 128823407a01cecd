package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// compareManifests injects, reverts and adopts every manifest of the base. Manifests
// that the default mode injects are also injected in the other modes.
func compareManifests(ctx context.Context, r *report, before, after tree, more []string) error {
	files, err := manifests(append([]string{
		filepath.Join(before.folder, "samples"), filepath.Join(before.folder, "webhook"), filepath.Join(before.folder, "internal"),
	}, more...))
	if err != nil {
		return err
	}
	settings, err := os.MkdirTemp("", "isthmus-behaviour-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(settings) }()
	variants := map[string]string{}
	for name, defaults := range map[string]string{"mode secret": "{mode: secret}", "mode istio": "{mode: istio}", "mode ambient": "{mode: ambient}", "publisher": "{source: agent}"} {
		variants[name] = filepath.Join(settings, strings.ReplaceAll(name, " ", "-")+".yaml")
		if err := os.WriteFile(variants[name], []byte("publisherImage: example.com/isthmus:v1\ndefaults: "+defaults+"\n"), 0o600); err != nil {
			return err
		}
	}
	both := func(kind, file string, stdin string, args ...string) (result, error) {
		previous, err := execute(ctx, before, stdin, args...)
		if err != nil {
			return result{}, err
		}
		current, err := execute(ctx, after, stdin, args...)
		r.add(kind, file, compareResults(previous, current))
		return previous, err
	}
	for i, file := range files {
		if i%50 == 0 {
			progress("%d of %d manifests", i, len(files))
		}
		if _, err := both("adopt", file, "", "adopt", "-f", file); err != nil {
			return err
		}
		injected, err := both("inject", file, "", "inject", "-f", file)
		if err != nil {
			return err
		}
		if !strings.Contains(injected.stdout, "isthmus.dev/status") {
			continue
		}
		if _, err := both("uninject", file, injected.stdout, "uninject", "-f", "-"); err != nil {
			return err
		}
		for name, path := range variants {
			if _, err := both("inject, "+name, file, "", "inject", "-f", file, "--settings", path); err != nil {
				return err
			}
		}
	}
	return nil
}

// manifests lists the YAML and JSON files below folders.
func manifests(folders []string) ([]string, error) {
	var files []string
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list the manifests of %s: %w", folder, err)
		}
	}
	return files, nil
}

// result is what one run of the program did.
type result struct {
	status         int
	stdout, stderr string
}

func execute(ctx context.Context, t tree, stdin string, args ...string) (result, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, t.program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		return result{}, err
	}
	return result{status: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}, nil
}

// decisions drops the wording from a report: the remark in parentheses at the end
// of a line unless it is a code, and the text of a warning.
func decisions(report string) []string {
	var lines []string
	for line := range strings.Lines(report) {
		line = strings.TrimRight(line, "\n")
		if match := warningLine.FindString(line); match != "" {
			line = match
		} else if remark := remarkAtEnd.FindStringIndex(line); remark != nil {
			line = line[:remark[0]]
		}
		lines = append(lines, line)
	}
	return lines
}

var (
	warningLine = regexp.MustCompile(`^warning: (?:\S+/\S+: )?`)
	remarkAtEnd = regexp.MustCompile(` \(([^()]* .*)\)$`)
)

// compareResults compares exit status, manifests, and the decisions of the report.
func compareResults(previous, current result) string {
	if previous.status != current.status {
		return fmt.Sprintf("exit status is %d, and was %d: %s", current.status, previous.status, quote(current.stderr))
	}
	if d := compareTexts(previous.stdout, current.stdout); d != "" {
		return d
	}
	if previous.status != 0 {
		return "" // an error message: wording
	}
	a, b := decisions(previous.stderr), decisions(current.stderr)
	if !slices.Equal(a, b) {
		return fmt.Sprintf("the report says %s, and said %s", quote(b), quote(a))
	}
	return ""
}
