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

// usrMergedFolders are the folders that are symbolic links into /usr on current
// Debian.
var usrMergedFolders = []string{"bin", "sbin", "lib", "lib64"}

// Packages returns a folder in the cache with unpacked Debian packages and those of
// their dependencies that this machine does not have installed. Mounted over the
// machine's files, it makes the packages available without installing them. The
// folder is empty if everything is installed.
func (b Builder) Packages(ctx context.Context, names ...string) (string, error) {
	names = slices.Sorted(slices.Values(names))
	folder, err := b.Cached(ctx, "packages-"+Key(names...), func(target string) error {
		if err := checkDebianTools(); err != nil {
			return err
		}
		label, start := "fetching Debian's packages "+strings.Join(names, ", "), time.Now()
		_, _ = fmt.Fprintf(b.Progress, "%s (once; seconds), into %s\n", label, b.Cache)
		count, err := b.unpackMissing(ctx, names, target)
		if err == nil {
			_, _ = fmt.Fprintf(b.Progress, "%s: %d of them and of what they need, done in %s\n", label, count, time.Since(start).Round(time.Second))
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("packages %s of Debian: %w; install them (apt-get install %s), and they are used", strings.Join(names, ", "), err, strings.Join(names, " "))
	}
	return folder, nil
}

// unpackMissing unpacks the packages that the machine does not have installed into
// target and returns their number.
func (b Builder) unpackMissing(ctx context.Context, names []string, target string) (int, error) {
	temporary := filepath.Dir(target)
	archives, err := b.downloadMissing(ctx, temporary, names...)
	if err != nil {
		return 0, err
	}
	for _, name := range usrMergedFolders {
		if err := errors.Join(os.MkdirAll(filepath.Join(target, "usr", name), 0o755), os.Symlink(filepath.Join("usr", name), filepath.Join(target, name))); err != nil {
			return 0, err
		}
	}
	for _, archive := range archives {
		// dpkg-deb --extract would replace the symbolic links with folders.
		_, err := b.runCommand(ctx, temporary, "sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"`, "sh", archive, target)
		if err != nil {
			return 0, err
		}
	}
	return len(archives), nil
}

// downloadMissing lets apt fetch packages and their dependencies into a folder,
// except those that are installed. It does not write to apt's own folders. names may
// begin with options for apt.
func (b Builder) downloadMissing(ctx context.Context, folder string, names ...string) ([]string, error) {
	cache := filepath.Join(folder, "apt")
	if err := os.MkdirAll(filepath.Join(cache, "archives", "partial"), 0o755); err != nil {
		return nil, err
	}
	arguments := []string{"apt-get", "install", "--quiet", "--yes", "--download-only", "--no-install-recommends",
		"-o", "Acquire::Retries=3", "-o", "Dir::Cache=" + cache, "-o", "Debug::NoLocking=true"}
	if err := b.runApt(ctx, folder, append(arguments, names...)...); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(cache, "archives", "*.deb"))
}
