package imagebuilder

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/builder"
)

// The parsed Dockerfile must match the image that the documentation describes.
func TestDockerfileIsParsed(t *testing.T) {
	root, err := builder.Root(".")
	if err != nil {
		if root, err = filepath.Abs(filepath.Join("..", "..", "..", "..", "..")); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseDockerfile(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for part, pair := range map[string][2]any{
		"sources":     {r.sources, []string{"go.mod", "go.sum", "cmd", "internal", "patches", "webhook"}},
		"files":       {r.outputs(), map[string]string{"/isthmus": "isthmus", "/isthmus-publish": "isthmus-publish"}},
		"user":        {r.user, "65532:65532"},
		"entry point": {r.entrypoint, []string{"/isthmus"}},
		"script": {r.script("/cache/x", map[string]string{"VERSION": "1.2.3", "TARGETARCH": "amd64"}), "go mod download\n" +
			`CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -buildvcs=false ` +
			`-ldflags "-s -w -X main.version=1.2.3 -X main.commit=unknown -X main.date=unknown" -o /cache/x/ ./cmd/isthmus ./cmd/isthmus-publish`},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: got %v, want %v", part, pair[0], pair[1])
		}
	}
	// Every source of the Dockerfile exists.
	for _, source := range r.sources {
		if _, err := os.Stat(filepath.Join(root, source)); err != nil {
			t.Error(err)
		}
	}
}

func TestUnknownDockerfileFormIsRejected(t *testing.T) {
	const whole = "FROM go AS build\nCOPY cmd cmd\nRUN go build -o /out/ ./cmd\nFROM scratch\nCOPY --from=build /out/x /\nUSER 1:1\nENTRYPOINT [\"/x\"]\n"
	if _, err := parseDockerfile(whole); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ from, to, want string }{
		"if it has another instruction, expect an error":      {"USER", "ENV A=B\nUSER", `unknown instruction ENV in "ENV A=B"`},
		"if the base is not scratch, expect an error":         {"FROM scratch", "FROM debian", `unknown instruction FROM in "FROM debian"`},
		"if it copies from elsewhere, expect an error":        {"--from=build", "--from=other", "unknown instruction COPY"},
		"if it has no user, expect an error":                  {"USER 1:1\n", "", "want two stages with RUN, COPY --from, USER and ENTRYPOINT"},
		"if the entry point is a shell form, expect an error": {`["/x"]`, "/x", "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseDockerfile(strings.Replace(whole, test.from, test.to, 1))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}

// The key of an image depends on its content, not on the paths of its sources.
func TestImageKeyFollowsItsContent(t *testing.T) {
	put := func(content string) string {
		file := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	key := func(change func(*description)) string {
		d := description{Name: "a:b", User: "1:1", Entrypoint: []string{"/x"}}
		d.addProgram("/x", put("one"))
		d.Layers = append(d.Layers, layer{Folder: filepath.Dir(put("two"))})
		change(&d)
		k, err := d.key()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	same := key(func(*description) {})
	if second := key(func(*description) {}); second != same {
		t.Errorf("keys %s and %s of the same content", same, second)
	}
	for name, change := range map[string]func(*description){
		"name":        func(d *description) { d.Name = "a:c" },
		"user":        func(d *description) { d.User = "2:2" },
		"entry point": func(d *description) { d.Entrypoint = []string{"/x", "y"} },
		"environment": func(d *description) { d.Env = []string{"A=B"} },
		"program":     func(d *description) { d.Layers[0].Files[0].Source = put("three") },
		"place":       func(d *description) { d.Layers[0].Files[0].Path = "/y" },
		"folder":      func(d *description) { d.Layers[1].Folder = filepath.Dir(put("four")) },
	} {
		if key(change) == same {
			t.Errorf("another %s has the same key", name)
		}
	}
}
