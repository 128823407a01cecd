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

// Clock is our own image with programs whose clock can be set: the same sources, but
// for the standard library's time.Now, and a listener on port 10999 that takes
// orders. The real clock of a machine has no namespace, so that this is the nearest
// to a clock that jumps.
const Clock = "isthmus.test/isthmus-clock"

var (
	//go:embed clock/jump.go.txt
	jumpSource string
	//go:embed clock/main.go.txt
	orderSource string
)

// clockRead is the line of time.Now that reads the clock.
const clockRead = "\tsec, nsec, mono := runtimeNow()\n"

// clockImage describes the image.
func clockImage(ctx context.Context, b builder.Builder) (description, error) {
	return productBuild{image: Clock, label: "isthmus-clock", prelude: overlayClock, sources: []string{jumpSource, orderSource, clockRead}}.describe(ctx, b)
}

// overlayClock writes what is put over the sources, and returns how the go command is
// told of it.
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
		return "", fmt.Errorf("%s/time.go reads the clock in another way than %q: teach this file", library, clockRead)
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
