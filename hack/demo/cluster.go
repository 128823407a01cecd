package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// buildPrograms builds every program of the demo, in the cache or the demo's folder, and
// links them into one folder that the user can add to PATH.
func (d *demo) buildPrograms(ctx context.Context) error {
	if err := os.MkdirAll(d.path("bin"), 0o755); err != nil {
		return err
	}
	if err := d.compile(ctx, filepath.Join(d.root, "test", "tools", "cluster"), "cluster", ""); err != nil {
		return err
	}
	tools := []string{"kubectl", "helm", "pilot-discovery", "etcd", "kube-apiserver", "kube-controller-manager"}
	command := d.clusterCommand(ctx, append([]string{"build"}, tools...)...)
	command.Stderr = d.screen
	paths, err := command.Output()
	if err != nil {
		return fmt.Errorf("build the control plane: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(paths)), "\n")
	if len(lines) != len(tools) {
		return fmt.Errorf("build the control plane: want %d paths, got %q", len(tools), paths)
	}
	for i, tool := range tools[:3] {
		if err := os.Symlink(lines[i], d.path("bin", tool)); err != nil {
			return err
		}
	}
	return d.compile(ctx, d.root, "isthmus", "./cmd/isthmus")
}

// compile builds a Go program and reports progress, because the first build takes
// minutes.
func (d *demo) compile(ctx context.Context, folder, name, pkg string) error {
	if pkg == "" {
		pkg = "."
	}
	version := "dev"
	describe := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty")
	describe.Dir = d.root
	if out, err := describe.Output(); err == nil {
		version = strings.TrimSpace(string(out))
	}
	command := exec.CommandContext(ctx, "go", "build", "-v", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", d.path("bin", name), pkg)
	command.Dir, command.Env = folder, append(os.Environ(), "CGO_ENABLED=0")
	interruptOnCancel(command)
	progress := &buildProgress{screen: d.screen, name: name, started: time.Now(), reported: time.Now()}
	command.Stdout, command.Stderr = progress, progress
	if err := command.Run(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, strings.Join(progress.errorLines, "\n"))
	}
	return nil
}

// clusterCommand is a command of test/tools/cluster, which starts and stops control planes.
func (d *demo) clusterCommand(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, d.path("bin", "cluster"), arguments...)
	command.Dir = filepath.Join(d.root, "test", "tools", "cluster")
	interruptOnCancel(command)
	return command
}

func (d *demo) kubeconfig() string { return d.path("cluster", "kubeconfig") }

// startControlPlane starts the control plane and returns the API server's address.
func (d *demo) startControlPlane(ctx context.Context) (string, error) {
	command := d.clusterCommand(ctx, "up", "--controller-manager", "--detach", "--data", d.path("cluster"))
	command.Stderr = d.screen
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("start the control plane: %w", err)
	}
	var endpoint struct{ Server string }
	if err := json.Unmarshal(out, &endpoint); err != nil {
		return "", fmt.Errorf("start the control plane: %w in %q", err, out)
	}
	return endpoint.Server, nil
}

// down stops all processes of the demo and removes its files.
func (d *demo) down(ctx context.Context) error {
	entries, err := os.ReadDir(d.folder)
	if errors.Is(err, os.ErrNotExist) {
		d.screen.println("The demo is not running.")
		return nil
	}
	if err != nil {
		return err
	}
	if err := d.removeAll(ctx, entries); err != nil {
		return err
	}
	d.screen.println("The demo is stopped, and its files are removed.")
	return nil
}

func (d *demo) removeAll(ctx context.Context, entries []os.DirEntry) error {
	for _, entry := range entries {
		if !isDemoFile(entry.Name()) {
			return fmt.Errorf("%s holds %s, which is not a file of the demo: move it elsewhere", d.folder, entry.Name())
		}
	}
	for _, name := range daemonNames() {
		if err := d.readDaemon(name).terminate(10 * time.Second); err != nil {
			return err
		}
	}
	if _, err := os.Stat(d.path("cluster")); err == nil {
		if _, err := os.Stat(d.path("bin", "cluster")); err != nil {
			if err := d.compile(ctx, filepath.Join(d.root, "test", "tools", "cluster"), "cluster", ""); err != nil {
				return err
			}
		}
		command := d.clusterCommand(ctx, "down", "--data", d.path("cluster"))
		command.Stderr = io.Discard
		if out, err := command.Output(); err != nil {
			return fmt.Errorf("stop the control plane: %w: %s", err, out)
		}
	}
	return os.RemoveAll(d.folder)
}

// isDemoFile reports whether the demo writes a file or folder of this name. Only such
// files may be removed.
func isDemoFile(name string) bool {
	switch name {
	case "bin", "cluster", "helm", istiodName, "kube", "pods", "settings":
		return true
	}
	base, extension, _ := strings.Cut(name, ".")
	return slices.Contains(daemonNames(), base) && (extension == "json" || extension == "kubeconfig" || extension == "log")
}
