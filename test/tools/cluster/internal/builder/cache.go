package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// CacheFolder returns the folder of built tools and creates it: $ISTHMUS_CACHE, or a
// folder in the user's cache folder, or, if HOME is not set, a folder of the user in
// the temporary folder.
func CacheFolder() (string, error) {
	if folder := os.Getenv("ISTHMUS_CACHE"); folder != "" {
		absolute, err := filepath.Abs(folder)
		if err != nil {
			return "", fmt.Errorf("ISTHMUS_CACHE=%s: %w", folder, err)
		}
		return absolute, os.MkdirAll(absolute, 0o755)
	}
	if folder, err := os.UserCacheDir(); err == nil {
		folder = filepath.Join(folder, "isthmus")
		return folder, os.MkdirAll(folder, 0o755)
	}
	folder := filepath.Join(os.TempDir(), "isthmus-cache-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	// The name can be guessed, and the files in the folder will be executed.
	info, err := os.Lstat(folder)
	if err != nil {
		return "", err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(stat.Uid) != os.Getuid() {
		return "", fmt.Errorf("%s belongs to someone else: set ISTHMUS_CACHE or HOME", folder)
	}
	return folder, nil
}

// buildPlan is how and where a module's tools are built.
type buildPlan struct {
	folder string // of the go.mod, absolute
	flags  string // -ldflags
	target string // in the cache, absolute
}

// buildPlan reads the module's go.mod, go.sum and Go files and derives flags and
// target from them.
func (m Module) buildPlan(root, cache string) (buildPlan, error) {
	folder := filepath.Join(root, filepath.FromSlash(m.Folder))
	goMod, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	if err != nil {
		return buildPlan{}, err
	}
	goSum, err := os.ReadFile(filepath.Join(folder, "go.sum"))
	if err != nil {
		return buildPlan{}, err
	}
	flags, err := m.linkerFlags(string(goMod))
	if err != nil {
		return buildPlan{}, err
	}
	program, err := programSources(folder)
	if err != nil {
		return buildPlan{}, err
	}
	parts := append([]string{string(goMod), string(goSum), flags, runtime.Version(), platform()}, program...)
	target := filepath.Join(cache, m.Name+"-"+Key(parts...))
	return buildPlan{folder: folder, flags: flags, target: target}, nil
}

// programSources returns names and contents of the Go files in the folder of a go.mod
// and in its subfolders, without tests. There are some if the module's programs are
// our own; each of them is one package.
func programSources(folder string) ([]string, error) {
	beside, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	below, err := filepath.Glob(filepath.Join(folder, "*", "*.go"))
	if err != nil {
		return nil, err
	}
	var parts []string
	for _, file := range append(beside, below...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		parts = append(parts, filepath.Base(file), string(content))
	}
	return parts, nil
}

// platform returns the target of the build. It is always this machine, whatever GOOS
// and GOARCH are set to.
func platform() string { return runtime.GOOS + "-" + runtime.GOARCH }

// Key returns a hash of its parts. Different lists of parts have different keys.
func Key(parts ...string) string {
	hash := sha256.New()
	for _, part := range parts {
		_, _ = fmt.Fprintf(hash, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(hash.Sum(nil))[:16]
}
