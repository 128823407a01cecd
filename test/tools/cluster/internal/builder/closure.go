package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Closure returns a folder in the cache with a program of a Debian package, its
// loader and every library that it is linked to, each at Debian's path, and nothing
// else. It can be the root of an image in which the program runs. apt fetches the
// package with all of its dependencies, as if nothing was installed, and installs
// nothing.
func (b Builder) Closure(ctx context.Context, p PackagedTool) (string, error) {
	if folder := b.cachedClosure(p); folder != "" {
		return folder, nil
	}
	unlock, err := lock(ctx, b.Cache, b.Progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if folder := b.cachedClosure(p); folder != "" { // another process may have fetched it meanwhile
		return folder, nil
	}
	folder, err := b.fetchClosure(ctx, p)
	if err != nil {
		return "", fmt.Errorf("fetch Debian's package %s with all it depends on: %w", p.Package, err)
	}
	return folder, nil
}

// cachedClosure returns the newest closure in the cache; empty if there is none.
func (b Builder) cachedClosure(p PackagedTool) string {
	found, err := filepath.Glob(filepath.Join(b.Cache, "closure-"+p.Package+"-*", filepath.FromSlash(p.Path)))
	if err != nil || len(found) == 0 {
		return ""
	}
	return strings.TrimSuffix(found[len(found)-1], string(filepath.Separator)+filepath.FromSlash(p.Path))
}

// fetchClosure downloads and unpacks the packages, and stores the closure in the
// cache with the version of the program in its name.
func (b Builder) fetchClosure(ctx context.Context, p PackagedTool) (string, error) {
	if err := checkDebianTools(); err != nil {
		return "", err
	}
	temporary, err := os.MkdirTemp(b.Cache, "fetching-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(temporary) }()

	label, start := "fetching Debian's package "+p.Package+" with all it depends on", time.Now()
	_, _ = fmt.Fprintf(b.Progress, "%s (once; seconds), into %s\n", label, b.Cache)
	archives, err := b.downloadWithDependencies(ctx, p.Package, temporary)
	if err != nil {
		return "", err
	}
	unpacked, closure, version := filepath.Join(temporary, "whole"), filepath.Join(temporary, "kept"), ""
	for _, archive := range archives {
		if _, err := b.runCommand(ctx, temporary, "dpkg-deb", "--extract", archive, unpacked); err != nil {
			return "", err
		}
		if strings.HasPrefix(filepath.Base(archive), p.Package+"_") {
			if version, err = b.runCommand(ctx, temporary, "dpkg-deb", "--field", archive, "Version"); err != nil {
				return "", err
			}
		}
	}
	if err := copyLinked(unpacked, closure, p.Path); err != nil {
		return "", err
	}
	target := filepath.Join(b.Cache, "closure-"+p.Package+"-"+strings.ReplaceAll(version, ":", "_"))
	if err := errors.Join(os.RemoveAll(target), os.Rename(closure, target)); err != nil {
		return "", err
	}
	_, _ = fmt.Fprintf(b.Progress, "%s: version %s of %d packages, done in %s\n", label, version, len(archives), time.Since(start).Round(time.Second))
	return target, nil
}

// downloadWithDependencies lets apt fetch a package and all of its dependencies into
// a folder. apt gets an empty status file, so it treats every package as not
// installed.
func (b Builder) downloadWithDependencies(ctx context.Context, name, folder string) ([]string, error) {
	status := filepath.Join(folder, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	archives, err := b.downloadMissing(ctx, folder, "-o", "Dir::State::status="+status, "-o", "Dir::State::extended_states="+status+".auto", name)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(archives, func(a string) bool { return strings.HasPrefix(filepath.Base(a), name+"_") }) {
		return nil, fmt.Errorf("apt-get install left %d packages, without %s", len(archives), name)
	}
	return archives, nil
}
