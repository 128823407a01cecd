// Command demo brings up a Kubernetes control plane with istiod and Isthmus in
// it, shows what is injected into a real Emissary Deployment and why, which
// Secret is kept for it and how that heals, and leaves all of it running to try.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() { os.Exit(exitCode(os.Args[1:])) }

func exitCode(arguments []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx, arguments)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && !errors.Is(err, errLeft):
		fmt.Fprintln(os.Stderr, "demo: interrupted; nothing of it is left")
		return 130
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	return 1
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) != 1 || (arguments[0] != "up" && arguments[0] != "down") {
		return errors.New("usage: demo up|down")
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "charts", "isthmus", "Chart.yaml")); err != nil {
		return fmt.Errorf("run this in the repository's root: %w", err)
	}
	cache, err := cacheFolder()
	if err != nil {
		return err
	}
	unlock, err := lock(cache)
	if err != nil {
		return err
	}
	defer unlock()
	d := &demo{root: root, folder: filepath.Join(cache, "demo"), screen: newScreen(os.Stdout)}
	if arguments[0] == "down" {
		return d.down(ctx)
	}
	return d.up(ctx)
}

// demo is one run of this program.
type demo struct {
	// root of the repository.
	root string
	// folder holds everything that the demo writes.
	folder string
	screen *screen
}

func (d *demo) path(elements ...string) string {
	return filepath.Join(append([]string{d.folder}, elements...)...)
}

// cacheFolder is where the tools of tests and demo are kept too; see
// test/tools/cluster, which is a module of its own.
func cacheFolder() (string, error) {
	folder := os.Getenv("ISTHMUS_CACHE")
	if folder == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w: set HOME or ISTHMUS_CACHE to a folder of yours", err)
		}
		folder = filepath.Join(user, "isthmus")
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	return folder, os.MkdirAll(folder, 0o755)
}

// lock keeps a second run out; the folder itself is locked, which leaves no file.
func lock(folder string) (func(), error) {
	f, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("another make demo or make demo-down is at work: wait for it, or end it with Ctrl-C")
		}
		return nil, fmt.Errorf("lock %s: %w", folder, err)
	}
	return func() { _ = f.Close() }, nil
}
