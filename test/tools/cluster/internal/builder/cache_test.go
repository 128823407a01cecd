package builder

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestCacheFolderFollowsTheEnvironment(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	fallback := filepath.Join(temporary, "isthmus-cache-"+strconv.Itoa(os.Getuid()))
	for name, test := range map[string]struct{ cache, xdg, home, want string }{
		"if ISTHMUS_CACHE is set, expect it":           {cache: temporary + "/mine", home: temporary + "/home", want: temporary + "/mine"},
		"if there is a home, expect its cache":         {home: temporary + "/home", want: temporary + "/home/.cache/isthmus"},
		"if XDG names a cache, expect a folder there":  {xdg: temporary + "/xdg", want: temporary + "/xdg/isthmus"},
		"if nothing is set, expect a temporary folder": {want: fallback},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("ISTHMUS_CACHE", test.cache)
			t.Setenv("XDG_CACHE_HOME", test.xdg)
			t.Setenv("HOME", test.home)
			folder, err := CacheFolder()
			if err != nil || folder != test.want {
				t.Fatalf("CacheFolder = %q, %v, want %q", folder, err, test.want)
			}
			if info, err := os.Stat(folder); err != nil || !info.IsDir() {
				t.Errorf("%s was not made: %v", folder, err)
			}
		})
	}
}

func TestCacheFolderRejectsASymlink(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	t.Setenv("ISTHMUS_CACHE", "")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	link := filepath.Join(temporary, "isthmus-cache-"+strconv.Itoa(os.Getuid()))
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	_, err := CacheFolder()
	if want := link + " belongs to someone else: set ISTHMUS_CACHE or HOME"; errorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestKeySeparatesItsParts(t *testing.T) {
	if Key("ab", "c") == Key("a", "bc") {
		t.Error("Key(ab, c) equals Key(a, bc)")
	}
	if first, second := Key("a", "b"), Key("a", "b"); first != second {
		t.Errorf("key is %s, then %s", first, second)
	}
}

// Every input of a build changes the folder of its result.
func TestEveryBuildInputChangesTheTarget(t *testing.T) {
	root := t.TempDir()
	module := Module{Name: "m", Folder: "m"}
	goMod, goSum := filepath.Join(root, "m/go.mod"), filepath.Join(root, "m/go.sum")
	target := func() string {
		t.Helper()
		plan, err := module.buildPlan(root, "/cache")
		if err != nil {
			t.Fatal(err)
		}
		return plan.target
	}
	writeFile(t, goMod, "module m\n")
	writeFile(t, goSum, "")
	first := target()
	if !strings.HasPrefix(first, "/cache/m-") || first != target() {
		t.Errorf("target %s, then %s", first, target())
	}
	seen := map[string]string{first: "first"}
	change := func(input string) {
		t.Helper()
		if before, ok := seen[target()]; ok {
			t.Errorf("%s: the same target as %s", input, before)
		}
		seen[target()] = input
	}
	writeFile(t, goSum, "sum\n")
	change("another go.sum")
	writeFile(t, goMod, "module m\n\ngo 1.26.0\n")
	change("another go.mod")
	module.linkerVariables = [][2]string{{"main.version", "1"}}
	change("another flag")
	writeFile(t, filepath.Join(root, "m/main.go"), "package main\n")
	change("a program of our own")
	writeFile(t, filepath.Join(root, "m/main.go"), "package main // changed\n")
	change("another program of our own")
	before := target()
	writeFile(t, filepath.Join(root, "m/main_test.go"), "package main\n")
	if target() != before {
		t.Error("a test of the program changes the target")
	}
}
