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

// Once returns the path of what the cache holds under a name. Where it holds
// nothing, write makes a file or folder at a path that it is given, which is moved
// to its place when it is whole. The name holds a Key of all that decides what is
// made.
func (b Builder) Once(ctx context.Context, name string, write func(path string) error) (string, error) {
	target := filepath.Join(b.Cache, name)
	if isThere(target) {
		return target, nil
	}
	unlock, err := lock(ctx, b.Cache, b.Progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if isThere(target) { // someone may just have made it
		return target, nil
	}
	temporary, err := os.MkdirTemp(b.Cache, "making-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	made := filepath.Join(temporary, name)
	if err := write(made); err != nil {
		return "", err
	}
	return target, os.Rename(made, target)
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Shell runs a script that calls the go command, in a folder, and says under the
// label how far it is.
func (b Builder) Shell(ctx context.Context, label, folder, script string) error {
	_, _ = fmt.Fprintf(b.Progress, "%s (once; minutes when cold)\n", label)
	voice := &narrator{out: b.Progress, label: label, start: time.Now()}
	command := exec.CommandContext(ctx, "sh", "-euc", script)
	command.Dir = folder
	// The names of packages are what progress is told by.
	command.Env = append(b.environment(), "GOFLAGS=-v")
	if err := narrate(ctx, command, voice); err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	_, _ = fmt.Fprintf(b.Progress, "%s: done in %s\n", label, voice.elapsed(time.Now()))
	return nil
}

// Key hashes its parts so that no two lists of parts share a key.
func Key(parts ...string) string { return key(parts...) }
