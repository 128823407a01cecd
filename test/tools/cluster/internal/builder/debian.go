package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// PackagedTool is a program that is not built from source. It is used as installed
// on the machine, or from a Debian package that is unpacked into the cache without
// being installed.
type PackagedTool struct {
	// Name is the program's name on the PATH.
	Name string
	// Package is the Debian package, Path the program's path in it.
	Package, Path string
	// Probe are arguments with which the program ends at once and successfully. They
	// show whether the machine has the libraries that the program needs.
	Probe []string
}

// PackagedTools returns every program that comes from a package.
func PackagedTools() []PackagedTool {
	version := []string{"--version"}
	return []PackagedTool{
		{Name: "prometheus", Package: "prometheus", Path: "usr/bin/prometheus", Probe: version},
		{Name: "promtool", Package: "prometheus", Path: "usr/bin/promtool", Probe: version},
	}
}

// findPackaged returns the packaged program of this name, if there is one.
func findPackaged(name string) (PackagedTool, bool) {
	all := PackagedTools()
	i := slices.IndexFunc(all, func(p PackagedTool) bool { return p.Name == name })
	if i < 0 {
		return PackagedTool{}, false
	}
	return all[i], true
}

// findOrFetch returns the path of a packaged program: on the PATH or in the cache. It
// fetches the package if both lack the program.
func (b Builder) findOrFetch(ctx context.Context, p PackagedTool) (string, error) {
	if path, err := exec.LookPath(p.Name); err == nil {
		return filepath.Abs(path)
	}
	if path := b.findUnpacked(ctx, p); path != "" {
		return path, nil
	}
	unlock, err := lock(ctx, b.Cache, b.Progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if path := b.findUnpacked(ctx, p); path != "" { // another process may have fetched it meanwhile
		return path, nil
	}
	path, err := b.fetch(ctx, p)
	if err != nil {
		return "", fmt.Errorf("%s is not on the PATH, and Debian's package %s cannot be unpacked instead: %w; install %[1]s (on Debian: apt-get install %[2]s), and it is used",
			p.Name, p.Package, err)
	}
	return path, nil
}

// findUnpacked returns the program of the newest package in the cache that runs on
// this machine; empty if there is none. The cache may be shared with other machines.
func (b Builder) findUnpacked(ctx context.Context, p PackagedTool) string {
	found, err := filepath.Glob(filepath.Join(b.Cache, "debian-"+p.Package+"-*", filepath.FromSlash(p.Path)))
	if err != nil {
		return ""
	}
	for _, path := range slices.Backward(found) {
		if p.probe(ctx, path) == nil {
			return path
		}
	}
	return ""
}

// probe runs the program with its probe arguments.
func (p PackagedTool) probe(ctx context.Context, path string) error {
	out, err := exec.CommandContext(ctx, path, p.Probe...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", path, strings.Join(p.Probe, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// fetch downloads the package, unpacks it into the cache with its version in the
// folder's name, and returns the path of the program.
func (b Builder) fetch(ctx context.Context, p PackagedTool) (string, error) {
	if err := checkDebianTools(); err != nil {
		return "", err
	}
	temporary, err := os.MkdirTemp(b.Cache, "fetching-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(temporary) }()

	label, start := "fetching Debian's package "+p.Package, time.Now()
	_, _ = fmt.Fprintf(b.Progress, "%s (once; seconds), into %s\n", label, b.Cache)
	archive, err := b.download(ctx, p.Package, temporary)
	if err != nil {
		return "", err
	}
	version, err := b.runCommand(ctx, temporary, "dpkg-deb", "--field", archive, "Version")
	if err != nil {
		return "", err
	}
	content := filepath.Join(temporary, "content")
	if _, err := b.runCommand(ctx, temporary, "dpkg-deb", "--extract", archive, content); err != nil {
		return "", err
	}
	if err := p.probe(ctx, filepath.Join(content, filepath.FromSlash(p.Path))); err != nil {
		return "", fmt.Errorf("what is in it does not run without being installed: %w", err)
	}
	target := filepath.Join(b.Cache, "debian-"+p.Package+"-"+strings.ReplaceAll(version, ":", "_"))
	if err := errors.Join(os.RemoveAll(target), os.Rename(content, target)); err != nil {
		return "", err
	}
	_, _ = fmt.Fprintf(b.Progress, "%s: version %s, done in %s\n", label, version, time.Since(start).Round(time.Second))
	return filepath.Join(target, filepath.FromSlash(p.Path)), nil
}

// checkDebianTools returns an error if a program is missing that is needed to fetch
// and unpack packages.
func checkDebianTools() error {
	for _, needed := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(needed); err != nil {
			return fmt.Errorf("there is no %s, so this is no Debian", needed)
		}
	}
	return nil
}

// download lets apt fetch a package into a folder.
func (b Builder) download(ctx context.Context, name, folder string) (string, error) {
	if err := b.runApt(ctx, folder, "apt-get", "download", "--quiet", "-o", "Acquire::Retries=3", name); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages, want one", len(found))
	}
	return found[0], nil
}

// runApt runs apt in a folder. If it fails, as in a new container without package
// lists, root updates the package lists and runs it again.
func (b Builder) runApt(ctx context.Context, folder string, arguments ...string) error {
	_, err := b.runCommand(ctx, folder, arguments...)
	if err == nil {
		return nil
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("%w (where package lists are missing or old, apt-get update as root helps)", err)
	}
	_, _ = fmt.Fprintln(b.Progress, "updating the package lists: apt-get update")
	if _, updated := b.runCommand(ctx, folder, "apt-get", "update", "--quiet", "-o", "Acquire::Retries=3"); updated != nil {
		return errors.Join(err, updated)
	}
	_, err = b.runCommand(ctx, folder, arguments...)
	return err
}

// runCommand runs a program in a folder and returns its standard output without
// leading and trailing space. It reports progress while the program runs.
func (b Builder) runCommand(ctx context.Context, folder string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, arguments[0], arguments[1:]...)
	command.Dir = folder
	command.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, stderr bytes.Buffer
	command.Stdout, command.Stderr = &out, &stderr
	shown := strings.Join(arguments[:2], " ")
	if err := command.Start(); err != nil {
		return "", fmt.Errorf("%s: %w", shown, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	start, ticker := time.Now(), time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			_, _ = fmt.Fprintf(b.Progress, "%s: %s\n", shown, now.Sub(start).Round(time.Second))
		case err := <-ended:
			if err != nil {
				return "", fmt.Errorf("%s: %w: %s", shown, err, strings.TrimSpace(stderr.String()))
			}
			return strings.TrimSpace(out.String()), nil
		}
	}
}
