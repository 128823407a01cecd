package security

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHostileManifests gives hostile files to the command line: it ends with one clear
// error, in bounded memory.
func TestHostileManifests(t *testing.T) {
	billionLaughs := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for letter := 'b'; letter < 'k'; letter++ {
		billionLaughs += fmt.Sprintf("%c: &%c [%s]\n", letter, letter, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", letter-1), 9), ","))
	}
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: edge}\n"
	const maxMemory = 1 << 30
	for name, test := range map[string]struct {
		file    func(t *testing.T, folder string) string
		message string
	}{
		"if it is a billion laughs, expect an error":   {writeManifest(pod + billionLaughs), "excessive aliasing"},
		"if it is nested without end, expect an error": {writeManifest(pod + "spec: " + strings.Repeat("[", 1<<20)), "does not parse"},
		"if it is nested in JSON, expect an error":     {writeManifest(`{"a":` + strings.Repeat("[", 1<<20)), "does not parse"},
		"if it never ends, expect an error":            {func(*testing.T, string) string { return "/dev/zero" }, "holds more than 64 MiB: split it"},
		"if a link leads to itself, expect an error": {func(t *testing.T, folder string) string {
			path := filepath.Join(folder, "in.yaml")
			require.NoError(t, os.Symlink(path, path))
			return path
		}, "too many levels of symbolic links"},
		"if a directory's link leads to itself, expect an error": {func(t *testing.T, folder string) string {
			require.NoError(t, os.Symlink("loop.yaml", filepath.Join(folder, "loop.yaml")))
			return folder
		}, "too many levels of symbolic links"},
		"if a directory has folders within, expect that they are not read": {func(t *testing.T, folder string) string {
			require.NoError(t, os.Symlink("/", filepath.Join(folder, "root")))
			return folder
		}, "no *.yaml, *.yml or *.json file"},
		"if it is no text, expect an error": {writeManifest("\x00\xff\xfe\x01"), "is not UTF-8 text"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, command := range []string{"inject", "uninject", "adopt"} {
				var stdout, stderr bytes.Buffer
				run := exec.CommandContext(t.Context(), env.ProgramPath("isthmus"), command, "-f", test.file(t, t.TempDir()))
				run.Stdout, run.Stderr = &stdout, &stderr
				assert.Error(t, run.Run())
				assert.Contains(t, stderr.String(), test.message)
				assert.Less(t, stderr.Len(), 4096)
				assert.Empty(t, stdout.String(), "nothing is written of what went wrong")
				used, ok := run.ProcessState.SysUsage().(*syscall.Rusage)
				require.True(t, ok)
				assert.Less(t, used.Maxrss<<10, int64(maxMemory))
			}
		})
	}
}

func writeManifest(text string) func(*testing.T, string) string {
	return func(t *testing.T, folder string) string {
		path := filepath.Join(folder, "in.yaml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
}
