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

// Cached returns the path of what the cache holds under a name. Where it holds
// nothing, write makes a file or folder at a path that it is given, which is moved
// to its place when it is whole. The name holds a Key of all that decides what is
// made.
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
	if exists(target) { // someone may just have made it
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

// RunScript runs a script that calls the go command, in a folder, and says under the
// label how far it is.
func (b Builder) RunScript(ctx context.Context, label, folder, script string) error {
	_, _ = fmt.Fprintf(b.Progress, "%s (once; minutes when cold)\n", label)
	reporter := &progressReporter{out: b.Progress, label: label, start: time.Now()}
	command := exec.CommandContext(ctx, "sh", "-euc", script)
	command.Dir = folder
	// The names of packages are what progress is told by.
	command.Env = append(b.environment(), "GOFLAGS=-v")
	if err := runWithProgress(ctx, command, reporter); err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	_, _ = fmt.Fprintf(b.Progress, "%s: done in %s\n", label, reporter.elapsed(time.Now()))
	return nil
}
