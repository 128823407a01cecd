package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gomodules.xyz/jsonpatch/v2"
)

// diff returns a diff without colours.
func diff(t *testing.T, result Result) []byte {
	t.Helper()
	text, err := result.Diff(false)
	require.NoError(t, err)
	return text
}

// patchPrograms are the programs that apply a diff in a folder.
var patchPrograms = map[string][]string{
	"patch":     {"patch", "--batch", "--quiet", "--fuzz=0", "-p0"},
	"git apply": {"git", "apply", "-p0"},
}

// TestDiffApplies applies diffs with real programs. A diff is right if the file is then
// what is printed without -o diff.
func TestDiffApplies(t *testing.T) {
	pod := strings.TrimSuffix(edgePod, "\n")
	longPod := edgePod + strings.Repeat("    # x\n", 20) + "  dnsPolicy: Default\n"
	onLine := `{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"edge"}]}}`
	for name, files := range map[string]map[string]string{
		"one document":                        {"a.yaml": edgePod},
		"two hunks, then a document":          {"a.yaml": longPod + "---\nb: 2\nc: 3\nd: 4\ne: 5\n"},
		"a document before and after":         {"a.yaml": "# x\n---\na: 1\n---\n" + edgePod + "---\nb: 2\n"},
		"two documents that are edited":       {"a.yaml": edgePod + "---\n" + edgePod + "# end\n---\n" + longPod + "---\nb: 2\n"},
		"no final newline":                    {"a.yaml": pod},
		"no final newline in the last of two": {"a.yaml": edgePod + "---\n" + pod},
		"no final newline after the edit":     {"a.yaml": edgePod + "---\nb: 2"},
		"Windows newlines":                    {"a.yaml": strings.ReplaceAll(edgePod+"---\n"+edgePod, "\n", "\r\n")},
		"Windows newlines, no final one":      {"a.yaml": strings.ReplaceAll(pod, "\n", "\r\n")},
		"unusual line breaks":                 {"a.yaml": edgePod + "  hostname: \"a\u2028b\u0085c\"\n---\nb: 2\n"},
		"JSON":                                {"a.json": "{\"a\": 1}\n{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Pod\",\n  \"spec\": {\n    \"containers\": [\n      {\"name\": \"edge\"}\n    ]\n  }\n}\n"},
		"JSON objects on one line":            {"a.json": onLine + " {\"a\": 1} " + onLine + "\n"},
		"JSON without a newline":              {"a.json": onLine + onLine},
		"a document on the marker's line":     {"a.yaml": "--- " + onLine + "\n---\nb: 2\n"},
		"several files":                       {"a.yaml": edgePod, "b.yaml": "b: 2\n", "c.yaml": longPod + "---\nb: 2\n"},
		"a name with a blank":                 {"an edge.yaml": edgePod},
	} {
		t.Run(name, func(t *testing.T) {
			var sources []Source
			for _, file := range slices.Sorted(maps.Keys(files)) {
				sources = append(sources, Source{file, []byte(files[file])})
			}
			result, err := Transform(sources, "default", fakeEditor)
			require.NoError(t, err)
			for program, command := range patchPrograms {
				t.Run(program, func(t *testing.T) {
					dir := t.TempDir()
					for file, text := range files {
						require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
					}
					runPatch(t, dir, command, diff(t, result))
					for _, s := range sources {
						got, err := os.ReadFile(filepath.Join(dir, s.Name))
						require.NoError(t, err)
						alone, err := Transform([]Source{s}, "default", fakeEditor)
						require.NoError(t, err)
						assert.Equal(t, string(alone.Text()), string(got))
					}
				})
			}
		})
	}
}

func runPatch(t *testing.T, dir string, command []string, input []byte) {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Skipf("NOT RUN: %s is not installed", command[0])
	}
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(input)
	// A repository above the folder would make git skip files outside of it.
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, input)
}

func TestDiffColour(t *testing.T) {
	change := func(Workload) Edit {
		return Edit{Patch: []jsonpatch.Operation{newOperation("replace", "/metadata/name", "new")}}
	}
	got, err := transform(t, change, edgePod).Diff(true)
	require.NoError(t, err)
	assert.Equal(t, strings.Join([]string{
		"\x1b[1m--- a\x1b[m", "\x1b[1m+++ a\x1b[m", "\x1b[36m@@ -1,7 +1,7 @@ Pod default/edge\x1b[m",
		" apiVersion: v1", " kind: Pod", " metadata:", "\x1b[31m-  name: edge\x1b[m", "\x1b[32m+  name: new\x1b[m", " spec:", "   containers:", "   - name: edge", "",
	}, "\n"), string(got))
}

// TestDiffOfManyWorkloads shows that the diff of a list touches only lines that an edit
// changes.
func TestDiffOfManyWorkloads(t *testing.T) {
	in := "apiVersion: v1\nkind: List\nitems:\n"
	for i := range 100 {
		pod := strings.Replace(edgePod, "name: edge\n", fmt.Sprintf("name: edge%d\n", i), 1)
		in += "- " + strings.ReplaceAll(strings.TrimSuffix(pod, "\n"), "\n", "\n  ") + "\n"
	}
	text := string(diff(t, transform(t, fakeEditor, in)))
	assert.NotContains(t, text, "\n-", "nothing is removed")
	assert.Equal(t, 100, strings.Count(text, "\n+      - name: DIR\n"))
}

// TestDiffOfUnchangedLines shows that a diff neither removes nor adds a line that stays.
func TestDiffOfUnchangedLines(t *testing.T) {
	kyaml := "---\n{\n  kind: \"Pod\", # a\n  apiVersion: \"v1\",\n  metadata: {\n    name: \"edge\",\n  },\n  spec: {\n    containers: [{\n      name: \"edge\",\n    }, {\n      name: \"other\",\n    }],\n    volumes: [{\n      name: \"x\",\n    }],\n  },\n}\n"
	for name, in := range map[string]string{
		"KYAML": kyaml, "block style": edgePod + "  volumes:\n  - name: x\n  dnsPolicy: Default\n",
		"JSON": "{\n  \"kind\": \"Pod\",\n  \"apiVersion\": \"v1\",\n  \"spec\": {\n    \"volumes\": [\n      {\n        \"name\": \"x\"\n      }\n    ],\n    \"containers\": [\n      {\n        \"name\": \"edge\"\n      }\n    ]\n  }\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			result := transform(t, fakeEditor, in)
			text := string(diff(t, result))
			var removed []string
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "---") {
					removed = append(removed, line[1:])
				}
			}
			for _, line := range removed {
				assert.NotContains(t, text, "\n+"+line, "the line stays")
			}
			if name != "JSON" { // where lines gain a comma
				assert.Empty(t, removed)
			}
		})
	}
}
