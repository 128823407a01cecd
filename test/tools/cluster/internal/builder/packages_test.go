package builder

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// installApt replaces apt-get install: it records its arguments and downloads two
// packages into the folder that the arguments name.
const installApt = `#!/bin/sh
echo "$@" >> "$FAKE_APT_CALLS"
for word in "$@"; do
	case $word in
	Dir::Cache=*) archives=${word#Dir::Cache=}/archives ;;
	Dir::State::status=*) test -e "${word#Dir::State::status=}" && test ! -s "${word#Dir::State::status=}" || exit 1 ;;
	esac
done
echo > "$archives/tool_1%3a2-1_amd64.deb"
echo > "$archives/libtool_3_amd64.deb"
`

// unpackDpkg replaces dpkg-deb. Every package holds the files of $FAKE_TREE.
const unpackDpkg = `#!/bin/sh
case $1 in
--field) echo 1:2-1 ;;
--extract) mkdir -p "$3" && cp -a "$FAKE_TREE/." "$3" ;;
--fsys-tarfile) tar -C "$FAKE_TREE" -c . ;;
esac
`

// builderWithFakeDebian returns a builder with fakes of apt-get and dpkg-deb, the
// folder with the content of every package, and a function that returns the calls of
// apt-get.
func builderWithFakeDebian(t *testing.T) (builder Builder, tree string, calls func() []string) {
	t.Helper()
	path, tree := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(path, "apt-get"), installApt)
	writeFile(t, filepath.Join(path, "dpkg-deb"), unpackDpkg)
	list := filepath.Join(path, "calls")
	t.Setenv("PATH", path+":"+os.Getenv("PATH"))
	t.Setenv("FAKE_APT_CALLS", list)
	t.Setenv("FAKE_TREE", tree)
	return Builder{Cache: t.TempDir(), Progress: io.Discard}, tree, func() []string {
		content, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Collect(strings.Lines(string(content)))
	}
}

func TestPackagesAreUnpackedOnce(t *testing.T) {
	builder, tree, calls := builderWithFakeDebian(t)
	writeFile(t, filepath.Join(tree, "lib/libtool.so"), "library")
	writeFile(t, filepath.Join(tree, "usr/bin/tool"), "tool")
	first, err := builder.Packages(t.Context(), "tool", "other")
	if err != nil {
		t.Fatal(err)
	}
	// The files of lib are also in usr/lib, because lib is a symbolic link to it.
	for _, name := range []string{"usr/lib/libtool.so", "lib/libtool.so", "usr/bin/tool", "bin/tool"} {
		if _, err := os.Stat(filepath.Join(first, name)); err != nil {
			t.Error(err)
		}
	}
	second, err := builder.Packages(t.Context(), "other", "tool")
	if err != nil || second != first || len(calls()) != 1 || !strings.HasSuffix(calls()[0], " other tool\n") || strings.Contains(calls()[0], "Dir::State") {
		t.Errorf("again: %s, %v, calls %q", second, err, calls())
	}
}

// The program is this machine's ls; the package holds the machine's folders.
func TestClosureHoldsOnlyLinkedLibraries(t *testing.T) {
	builder, tree, calls := builderWithFakeDebian(t)
	for _, name := range []string{"bin", "lib", "lib64", "usr/lib"} {
		if _, err := os.Stat("/" + name); err != nil {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/"+name, filepath.Join(tree, name)); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := builder.Closure(t.Context(), PackagedTool{Name: "tool", Package: "tool", Path: "bin/ls"})
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(folder) != "closure-tool-1_2-1" {
		t.Errorf("folder %s", folder)
	}
	var files []string
	err = filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, filepath.Base(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	// ls needs libselinux, and that needs libpcre2.
	for _, want := range []string{"libc.so.6", "ls", "libselinux.so.1"} {
		if !slices.Contains(files, want) {
			t.Errorf("no %s in the closure: %q", want, files)
		}
	}
	if len(files) > 8 {
		t.Errorf("more files than needed: %q", files)
	}
	if second, err := builder.Closure(t.Context(), PackagedTool{Package: "tool", Path: "bin/ls"}); err != nil || second != folder || len(calls()) != 1 {
		t.Errorf("again: %s, %v, calls %q", second, err, calls())
	}
	if _, err := builder.Closure(t.Context(), PackagedTool{Package: "tool", Path: "bin/nothing"}); !strings.Contains(errorText(err), "fetch Debian's package tool with all it depends on: bin/nothing: ") {
		t.Errorf("error %v", err)
	}
}
