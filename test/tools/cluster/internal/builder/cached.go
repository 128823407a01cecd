package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Cached returns the path of the cache's file or folder of this name. If there is
// none, it calls write with a temporary path and moves the result into the cache when
// it is complete. The name must contain a Key of everything that the content depends
// on.
func (b Builder) Cached(ctx context.Context, name string, write func(path string) error) (string, error) {
	target := filepath.Join(b.Cache, name)
	if exists(target) {
		return target, nil
	}
	unlock, err := lock(ctx, b.Cache, b.Progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(target) { // another process may have made it meanwhile
		return target, nil
	}
	temporary, err := os.MkdirTemp(b.Cache, "making-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	result := filepath.Join(temporary, name)
	if err := write(result); err != nil {
		return "", err
	}
	return target, os.Rename(result, target)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// RunScript runs a shell script that calls the go command in a folder, and reports
// its progress with the label.
func (b Builder) RunScript(ctx context.Context, label, folder, script string) error {
	_, _ = fmt.Fprintf(b.Progress, "%s (once; minutes when cold)\n", label)
	reporter := &progressReporter{out: b.Progress, label: label, start: time.Now()}
	command := exec.CommandContext(ctx, "sh", "-euc", script)
	command.Dir = folder
	// With -v the go command prints each package, which is the measure of progress.
	command.Env = append(b.environment(), "GOFLAGS=-v")
	if err := runWithProgress(ctx, command, reporter); err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	_, _ = fmt.Fprintf(b.Progress, "%s: done in %s\n", label, reporter.elapsed(time.Now()))
	return nil
}
