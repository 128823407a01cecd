// Package imagebuilder builds the container images of the tests' node as tarballs in
// the cache. It builds them from programs of the builder's catalogue and from Debian
// packages, without a registry and without Docker.
package imagebuilder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/builder"
)

// The names of the images, except Product and Clock.
const (
	// IstioHub and IstioTag are the values of global.hub and global.tag for Istio's
	// chart. The tag is the version in the file VERSION of Istio's module: Isthmus
	// reads the agent's version from the tag, and unlike "latest" it does not make the
	// kubelet pull the image.
	IstioHub = "docker.io/istio"
	IstioTag = "1.31.0-dev"
	// Pause is the sandbox image in containerd's configuration.
	Pause = "registry.k8s.io/pause:3.10"
	// DNS is CoreDNS.
	DNS = "registry.k8s.io/coredns/coredns:v1.15.0"
	// Edge is HAProxy with a supervisor that gives it certificates.
	Edge = "isthmus.test/edge:dev"
	// Mesh is a service of the mesh, and its client.
	Mesh = "isthmus.test/mesh:dev"
)

// haproxy is the Debian package of the edge's proxy.
var haproxy = builder.PackagedTool{Name: "haproxy", Package: "haproxy", Path: "usr/sbin/haproxy"}

// pathVariable is the PATH in every image.
const pathVariable = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// nodeImages are the images that a node has from the start.
var nodeImages = []image{
	{"isthmus", productImage},
	{"pilot", programImage(IstioHub+"/pilot:"+IstioTag, "pilot-discovery", "/usr/local/bin/pilot-discovery", "1337:1337")},
	{"proxyv2", programImage(IstioHub+"/proxyv2:"+IstioTag, "pilot-agent", "/usr/local/bin/pilot-agent", "1337:1337")},
	{"pause", programImage(Pause, "image-pause", "/pause", "65535:65535")},
	{"coredns", programImage(DNS, "coredns", "/coredns", "65532:65532")},
	{"edge", edgeImage},
	{"mesh", programImage(Mesh, "image-mesh", "/mesh", "65532:65532")},
}

// extraImages are built only on request, and imported with an order.
var extraImages = []image{
	{"isthmus-clock", clockImage},
}

// image is an image that this package can build.
type image struct {
	// name is the last element of the image's name, without the tag.
	name string
	// describe builds the files of the image and returns its description.
	describe func(context.Context, builder.Builder) (description, error)
}

// Build builds the images that the cache does not hold, and returns the absolute paths
// of their tarballs. Without names it builds the images that a node has from the
// start. "ctr -n k8s.io images import" and "docker load" read the tarballs.
func Build(ctx context.Context, b builder.Builder, names ...string) ([]string, error) {
	var all []string
	for _, k := range slices.Concat(nodeImages, extraImages) {
		all = append(all, k.name)
	}
	if len(names) == 0 {
		names = all[:len(nodeImages)]
	}
	var tarballs []string
	for _, name := range names {
		i := slices.Index(all, name)
		if i < 0 {
			return nil, fmt.Errorf("unknown image %q: choose from %s", name, strings.Join(all, ", "))
		}
		tarball, err := slices.Concat(nodeImages, extraImages)[i].build(ctx, b)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		tarballs = append(tarballs, tarball)
	}
	return tarballs, nil
}

func (i image) build(ctx context.Context, b builder.Builder) (string, error) {
	d, err := i.describe(ctx, b)
	if err != nil {
		return "", err
	}
	return d.assemble(ctx, b)
}

// programImage returns the describe function of an image with one program, a tool of
// the builder's catalogue, as its entry point.
func programImage(name, tool, at, user string) func(context.Context, builder.Builder) (description, error) {
	return func(ctx context.Context, b builder.Builder) (description, error) {
		programs, err := b.Build(ctx, tool)
		if err != nil {
			return description{}, err
		}
		d := description{Name: name, User: user, Entrypoint: []string{at}, Env: []string{pathVariable}}
		d.addProgram(at, programs[tool])
		return d, nil
	}
}

// edgeImage describes the image of the edge: Debian's HAProxy and, in a layer above,
// its supervisor.
func edgeImage(ctx context.Context, b builder.Builder) (description, error) {
	d, err := programImage(Edge, "image-edge", "/usr/local/bin/edge", "8888:8888")(ctx, b)
	if err != nil {
		return description{}, err
	}
	proxy, err := b.Closure(ctx, haproxy)
	if err != nil {
		return description{}, err
	}
	d.Layers = append([]layer{{Folder: proxy}}, d.Layers...)
	return d, nil
}

// description is the input of the assembler; see test/tools/images/assembler.
type description struct {
	Name       string   `json:"name"`
	Output     string   `json:"output"`
	Layers     []layer  `json:"layers"`
	User       string   `json:"user"`
	Entrypoint []string `json:"entrypoint"`
	Env        []string `json:"env,omitempty"`
}

type layer struct {
	Files  []file `json:"files,omitempty"`
	Folder string `json:"folder,omitempty"`
}

type file struct {
	Path   string `json:"path"`
	Source string `json:"source"`
	Mode   uint32 `json:"mode"`
}

// addProgram adds a program to the last layer.
func (d *description) addProgram(at, program string) {
	if len(d.Layers) == 0 {
		d.Layers = []layer{{}}
	}
	last := &d.Layers[len(d.Layers)-1]
	last.Files = append(last.Files, file{Path: at, Source: program, Mode: 0o755})
	slices.SortFunc(last.Files, func(a, b file) int { return strings.Compare(a.Path, b.Path) })
}

var unsafeCharacters = regexp.MustCompile(`[^a-z0-9.]+`)

// assemble returns the path of the image's tarball in the cache, and writes it if the
// cache has none of the same content.
func (d *description) assemble(ctx context.Context, b builder.Builder) (string, error) {
	key, err := d.key()
	if err != nil {
		return "", err
	}
	programs, err := b.Build(ctx, "image-assembler")
	if err != nil {
		return "", err
	}
	name := "image-" + unsafeCharacters.ReplaceAllString(path.Base(d.Name), "-") + "-" + key + ".tar"
	return b.Cached(ctx, name, func(target string) error {
		_, _ = fmt.Fprintf(b.Progress, "assembling image %s\n", d.Name)
		d.Output = target
		input, err := json.Marshal(d)
		if err != nil {
			return err
		}
		command := exec.CommandContext(ctx, programs["image-assembler"])
		command.Stdin = bytes.NewReader(input)
		if output, err := command.CombinedOutput(); err != nil {
			return errors.Join(err, errors.New(strings.TrimSpace(string(output))))
		}
		return nil
	})
}

// assemblerFormat is the version of the assembler's output. It must change when the
// assembler writes a different tarball for the same description.
const assemblerFormat = "1"

// key returns a hash of the image's content, whatever the paths of the sources are.
func (d *description) key() (string, error) {
	parts := append([]string{assemblerFormat, d.Name, d.User, "entrypoint"}, d.Entrypoint...)
	parts = append(append(parts, "env"), d.Env...)
	for _, l := range d.Layers {
		parts = append(parts, "layer")
		for _, f := range l.Files {
			digest, err := fileDigest(f.Source)
			if err != nil {
				return "", err
			}
			parts = append(parts, f.Path, digest, fmt.Sprint(f.Mode))
		}
		if l.Folder == "" {
			continue
		}
		content, err := folderDigests(l.Folder)
		if err != nil {
			return "", err
		}
		parts = append(parts, content...)
	}
	return builder.Key(parts...), nil
}

// folderDigests returns the paths and digests of all files in a folder.
func folderDigests(folder string) ([]string, error) {
	var parts []string
	err := filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		digest, err := fileDigest(name)
		parts = append(parts, strings.TrimPrefix(name, folder), digest)
		return err
	})
	return parts, err
}

func fileDigest(name string) (string, error) {
	content, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = content.Close() }()
	hash := sha256.New()
	if _, err := io.Copy(hash, content); err != nil {
		return "", err
	}
	return string(hash.Sum(nil)), nil
}

// Copy copies tarballs to a folder and returns the new paths. On the same file system
// it creates hard links.
func Copy(tarballs []string, folder string) ([]string, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	var copies []string
	for _, from := range tarballs {
		to := filepath.Join(folder, filepath.Base(from))
		if err := os.RemoveAll(to); err != nil {
			return nil, err
		}
		if os.Link(from, to) != nil {
			content, err := os.ReadFile(from)
			if err != nil {
				return nil, err
			}
			if err := os.WriteFile(to, content, 0o644); err != nil {
				return nil, err
			}
		}
		copies = append(copies, to)
	}
	return copies, nil
}
