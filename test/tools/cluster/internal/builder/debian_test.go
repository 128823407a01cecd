package builder

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeApt replaces apt-get: it records its calls, finds a package only if there are
// package lists, and downloads a file as a package.
const fakeApt = `#!/bin/sh
echo "$1" >> "$FAKE_APT_CALLS"
case $1 in
update)
	if [ -n "$FAKE_APT_OFFLINE" ]; then echo "E: Could not resolve 'deb.example.org'" >&2; exit 100; fi
	touch "$FAKE_APT_CALLS.lists" ;;
download)
	if [ ! -e "$FAKE_APT_CALLS.lists" ]; then echo "E: Unable to locate package prometheus" >&2; exit 100; fi
	echo archive > prometheus_1%3a2.0-1_amd64.deb ;;
esac
`

// fakeDpkg replaces dpkg-deb. Every package holds prometheus and promtool.
const fakeDpkg = `#!/bin/sh
if [ "$1" = --field ]; then echo 1:2.0-1; exit; fi
mkdir -p "$3/usr/bin"
for name in prometheus promtool; do
	printf '#!/bin/sh\n%s\n' "$FAKE_PROGRAM" > "$3/usr/bin/$name"
	chmod 755 "$3/usr/bin/$name"
done
`

// builderWithFakeApt returns a builder whose PATH has only a shell and fakes of
// Debian's programs, and a function that returns the calls of apt-get.
func builderWithFakeApt(t *testing.T, progress io.Writer) (Builder, func() []string) {
	t.Helper()
	path := t.TempDir()
	writeFile(t, filepath.Join(path, "apt-get"), fakeApt)
	writeFile(t, filepath.Join(path, "dpkg-deb"), fakeDpkg)
	for _, name := range []string{"sh", "mkdir", "touch", "chmod"} {
		if err := os.Symlink("/bin/"+name, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	calls := filepath.Join(path, "calls")
	t.Setenv("PATH", path)
	t.Setenv("FAKE_APT_CALLS", calls)
	t.Setenv("FAKE_PROGRAM", "exit 0")
	return Builder{Cache: t.TempDir(), Progress: progress}, func() []string {
		content, err := os.ReadFile(calls)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Fields(string(content))
	}
}

// addPackageLists creates the package lists that fakeApt looks for.
func addPackageLists(t *testing.T) {
	t.Helper()
	writeFile(t, os.Getenv("FAKE_APT_CALLS")+".lists", "")
}

func TestPackageIsFetchedOnce(t *testing.T) {
	var progress bytes.Buffer
	builder, calls := builderWithFakeApt(t, &progress)
	addPackageLists(t)
	first, err := builder.Build(t.Context(), "promtool")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(builder.Cache, "debian-prometheus-1_2.0-1/usr/bin/promtool"); first["promtool"] != want {
		t.Errorf("path %s, want %s", first["promtool"], want)
	}
	if output := progress.String(); !strings.HasPrefix(output, "fetching Debian's package prometheus (once; seconds), into "+builder.Cache) ||
		!strings.Contains(output, "fetching Debian's package prometheus: version 1:2.0-1, done in 0s\n") {
		t.Errorf("progress: %s", output)
	}
	progress.Reset()
	both, err := builder.Build(t.Context(), "prometheus", "promtool")
	if err != nil || both["promtool"] != first["promtool"] || filepath.Base(both["prometheus"]) != "prometheus" {
		t.Errorf("the second time: %v, %v", both, err)
	}
	if !slices.Equal(calls(), []string{"download"}) || progress.Len() > 0 {
		t.Errorf("the second time: calls %q, progress %q", calls(), progress.String())
	}
	if left, err := filepath.Glob(filepath.Join(builder.Cache, "fetching-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFetchUpdatesMissingPackageLists(t *testing.T) {
	builder, calls := builderWithFakeApt(t, io.Discard)
	_, err := builder.Build(t.Context(), "promtool")
	if os.Getuid() != 0 {
		if !strings.Contains(errorText(err), "apt-get update as root helps") {
			t.Errorf("error %v", err)
		}
		return
	}
	if err != nil || !slices.Equal(calls(), []string{"download", "update", "download"}) {
		t.Errorf("calls %q, error %v", calls(), err)
	}
}

func TestFetchErrorsNameTheRemedy(t *testing.T) {
	const remedy = "; install promtool (on Debian: apt-get install prometheus), and it is used"
	for name, test := range map[string]struct {
		prepare func(t *testing.T)
		want    string
	}{
		"if there is no apt, expect the remedy": {
			prepare: func(t *testing.T) { t.Setenv("PATH", t.TempDir()) },
			want:    "promtool is not on the PATH, and Debian's package prometheus cannot be unpacked instead: there is no apt-get, so this is no Debian" + remedy,
		},
		"if apt is offline, expect its error": {
			prepare: func(t *testing.T) { t.Setenv("FAKE_APT_OFFLINE", "1") },
			want:    "E: Unable to locate package prometheus",
		},
		"if a library is missing, expect an error": {
			prepare: func(t *testing.T) {
				addPackageLists(t)
				t.Setenv("FAKE_PROGRAM", "echo libfoo.so.1: cannot open shared object file >&2; exit 127")
			},
			want: "what is in it does not run without being installed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			builder, _ := builderWithFakeApt(t, io.Discard)
			test.prepare(t)
			_, err := builder.Build(t.Context(), "promtool")
			if !strings.Contains(errorText(err), test.want) || !strings.HasSuffix(errorText(err), remedy) {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if left, err := filepath.Glob(filepath.Join(builder.Cache, "*-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// Machines may share a cache, so a cached program may not run on this one.
func TestCachedProgramThatDoesNotRunIsReplaced(t *testing.T) {
	builder, calls := builderWithFakeApt(t, io.Discard)
	addPackageLists(t)
	writeFile(t, filepath.Join(builder.Cache, "debian-prometheus-9/usr/bin/promtool"), "#!/bin/sh\nexit 1\n")
	paths, err := builder.Build(t.Context(), "promtool")
	if err != nil || !strings.Contains(paths["promtool"], "debian-prometheus-1_2.0-1") || len(calls()) != 1 {
		t.Errorf("paths %v, calls %q, error %v", paths, calls(), err)
	}
}

func TestInstalledProgramIsPreferred(t *testing.T) {
	builder, calls := builderWithFakeApt(t, io.Discard)
	installed := filepath.Join(os.Getenv("PATH"), "promtool")
	writeFile(t, installed, "#!/bin/sh\n")
	paths, err := builder.Build(t.Context(), "promtool")
	if err != nil || paths["promtool"] != installed || len(calls()) > 0 {
		t.Errorf("paths %v, calls %q, error %v", paths, calls(), err)
	}
}
