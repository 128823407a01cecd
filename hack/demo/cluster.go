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

// build makes every program of the demo, into the cache or its own folder, and
// links them into one folder that the user can put into PATH.
func (d *demo) build(ctx context.Context) error {
	if err := os.MkdirAll(d.path("bin"), 0o755); err != nil {
		return err
	}
	if err := d.compile(ctx, filepath.Join(d.root, "test", "tools", "cluster"), "cluster", ""); err != nil {
		return err
	}
	tools := []string{"kubectl", "helm", "pilot-discovery", "etcd", "kube-apiserver", "kube-controller-manager"}
	command := d.cluster(ctx, append([]string{"build"}, tools...)...)
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

// compile builds a program from source, and tells how far it is: the first time
// takes minutes.
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
	gently(command)
	progress := &narrator{screen: d.screen, name: name, begun: time.Now(), told: time.Now()}
	command.Stdout, command.Stderr = progress, progress
	if err := command.Run(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, strings.Join(progress.complaints, "\n"))
	}
	return nil
}

// cluster is the program that starts and ends control planes.
func (d *demo) cluster(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, d.path("bin", "cluster"), arguments...)
	command.Dir = filepath.Join(d.root, "test", "tools", "cluster")
	gently(command)
	return command
}

func (d *demo) kubeconfig() string { return d.path("cluster", "kubeconfig") }

// start brings up the control plane and returns the API server's address.
func (d *demo) start(ctx context.Context) (string, error) {
	command := d.cluster(ctx, "up", "--controller-manager", "--detach", "--data", d.path("cluster"))
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

// down ends what runs and removes what was written.
func (d *demo) down(ctx context.Context) error {
	entries, err := os.ReadDir(d.folder)
	if errors.Is(err, os.ErrNotExist) {
		d.screen.print("The demo is not up.")
		return nil
	}
	if err != nil {
		return err
	}
	if err := d.clear(ctx, entries); err != nil {
		return err
	}
	d.screen.print("The demo has ended; nothing of it is left.")
	return nil
}

func (d *demo) clear(ctx context.Context, entries []os.DirEntry) error {
	for _, entry := range entries {
		if !ours(entry.Name()) {
			return fmt.Errorf("%s holds %s, which is not the demo's: move it away", d.folder, entry.Name())
		}
	}
	for _, name := range servers() {
		if err := d.process(name).end(10 * time.Second); err != nil {
			return err
		}
	}
	if _, err := os.Stat(d.path("cluster")); err == nil {
		if _, err := os.Stat(d.path("bin", "cluster")); err != nil {
			if err := d.compile(ctx, filepath.Join(d.root, "test", "tools", "cluster"), "cluster", ""); err != nil {
				return err
			}
		}
		command := d.cluster(ctx, "down", "--data", d.path("cluster"))
		command.Stderr = io.Discard
		if out, err := command.Output(); err != nil {
			return fmt.Errorf("end the control plane: %w: %s", err, out)
		}
	}
	return os.RemoveAll(d.folder)
}

// ours are the names in the demo's folder; it is going to be removed.
func ours(name string) bool {
	switch name {
	case "bin", "cluster", "helm", istiodName, "kube", "pods", "settings":
		return true
	}
	base, extension, _ := strings.Cut(name, ".")
	return slices.Contains(servers(), base) && (extension == "json" || extension == "kubeconfig" || extension == "log")
}
