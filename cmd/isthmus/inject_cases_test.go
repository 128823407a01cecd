package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sharedCases is a folder of small manifests beside the repository. It is not part of the
// project.
const sharedCases = "../../../shared/cases/inject"

// outcome is what the commands do with a file.
type outcome struct {
	status int
	// unchanged is true if inject prints the file byte for byte.
	unchanged bool
	// says are parts of standard error, quietly those that -q keeps.
	says, quietly []string
}

// TestInjectSharedCases injects each file, applies the diff with patch(1), and reverts the
// injection: the file is then the same byte for byte.
func TestInjectSharedCases(t *testing.T) {
	if _, err := os.Stat(sharedCases); err != nil {
		t.Skipf("NOT RUN: no manifests in %s; the tests of internal/manifest still cover the edits", sharedCases)
	}
	injected := "injected (profile emissary, mode sidecar)"
	for file, want := range map[string]outcome{
		"volume-without-source.yaml":  {says: []string{injected}, quietly: []string{"is an emptyDir on disk"}},
		"lists-ten-deep.json":         {says: []string{injected}},
		"alias-in-neighbours.yaml":    {says: []string{injected}},
		"inline-empty-value.yaml":     {says: []string{injected}},
		"kyaml.yaml":                  {says: []string{injected}},
		"line-separators.yaml":        {says: []string{injected}},
		"two-documents.yaml":          {says: []string{injected}},
		"two-objects-on-a-line.json":  {says: []string{injected}},
		"marker-inline.yaml":          {says: []string{injected}},
		"whole-numbers.json":          {says: []string{injected}},
		"probe-port.json":             {says: []string{injected}},
		"strategic-patch.yaml":        {unchanged: true, says: []string{"deployment/default/edge: unchanged (a strategic merge patch with $patch"}},
		"patch-deletes-the-edge.yaml": {unchanged: true, says: []string{"deployment/default/edge: unchanged (a strategic merge patch with $patch"}},
		"helm-notes.yaml":             {says: []string{injected}, quietly: []string{"helm-notes.yaml:15: NOTES is no field of a Deployment"}},
		"keys-twice.yaml": {says: []string{"deployment/default/web: unchanged (no-profile)", "deployment/default/edge: " + injected},
			quietly: []string{`keys-twice.yaml:12: duplicate key "app", first on line 11`, `keys-twice.yaml:29: duplicate key "app", first on line 28`}},
		"empty-fields.yaml":          {says: []string{injected}},
		"namespace-unknown-key.yaml": {says: []string{injected}, quietly: []string{"warning: namespace/default: annotation isthmus.dev/moed is not known"}},
		"other-kinds.yaml": {says: []string{"rollout/default/edge: " + injected, "deploymentconfig/default/edge: " + injected,
			"template/edge: not looked into (", "helmrelease/edge: not looked into ("}},
		"neighbour.yaml":  {unchanged: true, says: []string{"deployment/default/web: unchanged (no-profile)"}},
		"array.json":      {unchanged: true, says: []string{"array.json: document 1: not looked into (a list"}},
		"long-value.yaml": {status: exitError, quietly: []string{"long-value.yaml:9: document 1 (Pod default/edge): spec.containers[0].env: want a list"}},
	} {
		t.Run(file, func(t *testing.T) {
			path := filepath.Join(sharedCases, file)
			original, err := os.ReadFile(path)
			require.NoError(t, err)
			got := isthmus(t, "", "inject", "-f", path)
			quiet := isthmus(t, "", "inject", "-q", "-f", path)
			require.Equal(t, want.status, got.status, got.stderr)
			assert.Equal(t, got.stdout, quiet.stdout)
			for _, text := range append(want.says, want.quietly...) {
				assert.Equal(t, 1, min(1, strings.Count(got.stderr, text)), "%s\nin %s", text, got.stderr)
			}
			for _, text := range want.says {
				assert.NotContains(t, quiet.stderr, text)
			}
			for _, text := range want.quietly {
				assert.Equal(t, 1, strings.Count(quiet.stderr, text), "%s\nin %s", text, quiet.stderr)
			}
			if want.status != exitOK {
				assert.Empty(t, got.stdout)
				assert.Equal(t, strings.ToValidUTF8(got.stderr, "?"), got.stderr)
				return
			}
			assert.Equal(t, want.unchanged, got.stdout == string(original))
			assert.Equal(t, string(original), isthmus(t, got.stdout, "uninject", "-q", "-f", "-").stdout)
			assert.Equal(t, got.stdout, patched(t, original, isthmus(t, "", "inject", "-q", "-o", "diff", "-f", path).stdout))
		})
	}
}

// patched returns a text after patch(1) has applied a diff to it. The tests do not need
// patch(1), so without it the rest of the test is skipped: call it last.
func patched(t *testing.T, text []byte, diff string) string {
	t.Helper()
	if _, err := exec.LookPath("patch"); err != nil {
		t.Skip("NOT RUN: patch(1) is not installed")
	}
	if diff == "" {
		return string(text)
	}
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	cmd := exec.CommandContext(t.Context(), "patch", "--batch", "--fuzz=0", path)
	cmd.Stdin = strings.NewReader(diff)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(after)
}
