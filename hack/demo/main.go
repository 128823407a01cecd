// Command demo starts a Kubernetes control plane with istiod and Isthmus. It shows what
// Isthmus injects into a real Emissary Deployment and why, which Secret the controller
// publishes for it, and how the controller repairs that Secret. Everything keeps running
// afterwards, so that the user can try it.
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
	case ctx.Err() != nil && !errors.Is(err, errCleanup):
		fmt.Fprintln(os.Stderr, "demo: interrupted, and its files are removed")
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
		return fmt.Errorf("run this in the root of the repository: %w", err)
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
	// folder holds all files of the demo.
	folder string
	screen *screen
}

func (d *demo) path(elements ...string) string {
	return filepath.Join(append([]string{d.folder}, elements...)...)
}

// cacheFolder is the cache of the programs that tests and the demo build; see
// test/tools/cluster, which is a separate module.
func cacheFolder() (string, error) {
	folder := os.Getenv("ISTHMUS_CACHE")
	if folder == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w: set HOME, or set ISTHMUS_CACHE to a folder", err)
		}
		folder = filepath.Join(user, "isthmus")
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	return folder, os.MkdirAll(folder, 0o755)
}

// lock prevents a second run at the same time. It locks the folder, so no file is left.
func lock(folder string) (func(), error) {
	f, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("another make demo or make demo-down is running: wait for it, or stop it with Ctrl-C")
		}
		return nil, fmt.Errorf("lock %s: %w", folder, err)
	}
	return func() { _ = f.Close() }, nil
}
