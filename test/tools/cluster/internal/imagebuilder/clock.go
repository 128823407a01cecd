package imagebuilder

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/builder"
)

// Clock is our own image with programs whose clock can be changed. It is built from
// the same sources with a modified time.Now of the standard library, and with a server
// on port 10999 that changes the clock. The machine's real-time clock has no
// namespace, so it cannot be changed for one container.
const Clock = "isthmus.test/isthmus-clock"

var (
	//go:embed clock/jump.go.txt
	jumpSource string
	//go:embed clock/main.go.txt
	orderSource string
)

// clockRead is the line of time.Now that reads the machine's clock.
const clockRead = "\tsec, nsec, mono := runtimeNow()\n"

// clockImage describes the image Clock.
func clockImage(ctx context.Context, b builder.Builder) (description, error) {
	return productBuild{image: Clock, label: "isthmus-clock", prelude: overlayClock, sources: []string{jumpSource, orderSource, clockRead}}.describe(ctx, b)
}

// overlayClock writes the modified sources and an overlay file for the go command into
// the folder, and returns the shell command that makes the go command use it.
func overlayClock(ctx context.Context, root, folder string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	original, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", err
	}
	_, body, found := strings.Cut(string(original), "\nfunc Now() Time {\n")
	if !found || !strings.HasPrefix(body, clockRead) {
		return "", fmt.Errorf("%s/time.go does not read the clock with %q: adapt the overlay of the image isthmus-clock", library, clockRead)
	}
	edited := strings.Replace(string(original), "\nfunc Now() Time {\n"+clockRead, "\nfunc Now() Time {\n"+clockRead+"\tsec += jumped.Load()\n", 1)
	replace := map[string]string{}
	for path, content := range map[string]string{
		filepath.Join(library, "time.go"):                        edited,
		filepath.Join(library, "jump.go"):                        jumpSource,
		filepath.Join(root, "cmd", "isthmus", "jump.go"):         orderSource,
		filepath.Join(root, "cmd", "isthmus-publish", "jump.go"): orderSource,
	} {
		file := filepath.Join(folder, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return "", err
		}
		replace[path] = file
	}
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(folder, "overlay.json")
	return `export GOFLAGS="$GOFLAGS -overlay=` + overlay + `"`, os.WriteFile(overlay, content, 0o600)
}
