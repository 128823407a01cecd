package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// compareGoldens compares every file of a testdata folder of the base with the same
// file in the working tree, which may have been renamed.
func compareGoldens(ctx context.Context, r *report, base string, before, after tree) error {
	listed, err := output(ctx, before.folder, "git", "ls-files")
	if err != nil {
		return err
	}
	renamed, err := output(ctx, after.folder, "git", "diff", "--find-renames=30%", "--diff-filter=R", "--name-status", base)
	if err != nil {
		return err
	}
	moves := map[string]string{}
	for line := range strings.Lines(renamed) {
		if fields := strings.Fields(line); len(fields) == 3 {
			moves[fields[1]] = fields[2]
		}
	}
	for line := range strings.Lines(listed) {
		path := strings.TrimSpace(line)
		if !strings.Contains(path, "/testdata/") {
			continue
		}
		previous, err := os.ReadFile(filepath.Join(before.folder, path))
		if err != nil {
			return err
		}
		now := path
		if moves[path] != "" {
			now = moves[path]
		}
		current, err := os.ReadFile(filepath.Join(after.folder, now))
		if err != nil {
			r.add("golden", path, "is gone")
			continue
		}
		r.add("golden", path, compareGolden(path, string(previous), string(current)))
	}
	return nil
}

// compareGolden compares documents after parsing, and reports without their wording.
func compareGolden(path, before, after string) string {
	switch filepath.Ext(path) {
	case ".report", ".golden":
		a, b := decisions(before), decisions(after)
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				return "a line is " + quote(b[i]) + ", and was " + quote(a[i])
			}
		}
		if len(a) != len(b) {
			return fmt.Sprintf("%d lines, and were %d", len(b), len(a))
		}
		return ""
	}
	return compareTexts(before, after)
}
