package imagebuilder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/builder"
)

// Product is the repository of our own image. Its tag is the chart's appVersion.
const Product = "ghcr.io/isthmus-mesh/isthmus"

// productImage describes the image Product.
func productImage(ctx context.Context, b builder.Builder) (description, error) {
	return productBuild{image: Product, label: "isthmus"}.describe(ctx, b)
}

// productBuild describes a build of our own programs and their image.
type productBuild struct {
	// image is the repository of the image.
	image string
	// label distinguishes builds of the same sources, in the cache and in progress.
	label string
	// prelude writes files that the build script needs into a folder and returns the
	// lines to run before the script. Default: none. sources are the prelude's inputs.
	prelude func(ctx context.Context, root, folder string) (string, error)
	sources []string
}

// describe builds our own programs with the commands of the Dockerfile and the Go of
// this machine, and returns the image's description.
func (p productBuild) describe(ctx context.Context, b builder.Builder) (description, error) {
	text, err := os.ReadFile(filepath.Join(b.Root, "Dockerfile"))
	if err != nil {
		return description{}, err
	}
	parsed, err := parseDockerfile(string(text))
	if err != nil {
		return description{}, fmt.Errorf("the Dockerfile: %w", err)
	}
	version, err := appVersion(b.Root)
	if err != nil {
		return description{}, err
	}
	parts := append([]string{p.label, string(text), version, runtime.Version(), runtime.GOARCH}, p.sources...)
	for _, source := range parsed.sources {
		content, err := sourceContents(b.Root, source)
		if err != nil {
			return description{}, err
		}
		parts = append(parts, content...)
	}
	folder, err := b.Cached(ctx, "product-"+builder.Key(parts...), func(path string) error {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		values := map[string]string{"VERSION": version, "TARGETOS": "linux", "TARGETARCH": runtime.GOARCH}
		return p.run(ctx, b, parsed.script(path, values))
	})
	if err != nil {
		return description{}, err
	}
	d := description{Name: p.image + ":" + version, User: parsed.user, Entrypoint: parsed.entrypoint}
	for path, name := range parsed.outputs() {
		d.addProgram(path, filepath.Join(folder, name))
	}
	return d, nil
}

// run runs the build script.
func (p productBuild) run(ctx context.Context, b builder.Builder, script string) error {
	if p.prelude != nil {
		folder, err := os.MkdirTemp("", "isthmus-build-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(folder) }()
		before, err := p.prelude(ctx, b.Root, folder)
		if err != nil {
			return err
		}
		script = before + "\n" + script
	}
	return b.RunScript(ctx, "building "+p.label+" as its Dockerfile says", b.Root, script)
}

var appVersionLine = regexp.MustCompile(`(?m)^appVersion:\s*"?([^"\s]+)"?\s*$`)

// appVersion returns the chart's appVersion, which is its default image tag.
func appVersion(root string) (string, error) {
	file := filepath.Join(root, "charts", "isthmus", "Chart.yaml")
	chart, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	found := appVersionLine.FindSubmatch(chart)
	if found == nil {
		return "", fmt.Errorf("%s has no line appVersion", file)
	}
	return string(found[1]), nil
}

// sourceContents returns the names and contents of a file, or of all files in a folder
// except those that .dockerignore excludes: tests and their data.
func sourceContents(root, source string) ([]string, error) {
	var parts []string
	err := filepath.WalkDir(filepath.Join(root, source), func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case d.IsDir() || strings.HasSuffix(d.Name(), "_test.go"):
			return nil
		}
		content, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) { // a temporary file of an editor, removed meanwhile
			return nil
		}
		parts = append(parts, strings.TrimPrefix(name, root), string(content))
		return err
	})
	return parts, err
}
