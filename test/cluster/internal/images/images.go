// Package images makes the container images that a node of the tests runs, as
// tarballs in the cache: from programs that are built here and from Debian's
// packages, without a registry and without Docker.
package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/tools"
)

// The images' names besides Product.
const (
	// IstioHub and IstioTag are what Istio's chart is told as global.hub and
	// global.tag. The tag is the version that Istio's module says in its file
	// VERSION: Isthmus reads the agent's version off it, and unlike "latest" it is
	// not pulled.
	IstioHub = "docker.io/istio"
	IstioTag = "1.31.0-dev"
	// Pause is what containerd has to be told as its sandbox image.
	Pause = "registry.k8s.io/pause:3.10"
	// DNS is CoreDNS.
	DNS = "registry.k8s.io/coredns/coredns:v1.15.0"
	// Edge is HAProxy with a supervisor that feeds it certificates.
	Edge = "isthmus.test/edge:dev"
	// Mesh is a service of the mesh, and a caller.
	Mesh = "isthmus.test/mesh:dev"
)

// haproxy is the edge's proxy.
var haproxy = tools.Packaged{Name: "haproxy", Package: "haproxy", Path: "usr/sbin/haproxy"}

// searched makes programs in an image callable by their names.
const searched = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Build makes the images that the cache does not hold yet, with progress, and
// returns the absolute paths of all tarballs. "ctr -n k8s.io images import" and
// "docker load" read them.
func Build(ctx context.Context, b tools.Builder) ([]string, error) {
	all, err := describe(ctx, b)
	if err != nil {
		return nil, err
	}
	programs, err := b.Build(ctx, "image-assembler")
	if err != nil {
		return nil, err
	}
	var tarballs []string
	for _, d := range all {
		tarball, err := d.assemble(ctx, b, programs["image-assembler"])
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", d.Name, err)
		}
		tarballs = append(tarballs, tarball)
	}
	return tarballs, nil
}

// describe builds what the images hold and describes them.
func describe(ctx context.Context, b tools.Builder) ([]description, error) {
	ours, err := product(ctx, b)
	if err != nil {
		return nil, err
	}
	programs, err := b.Build(ctx, "pilot-discovery", "pilot-agent", "coredns", "image-pause", "image-edge", "image-mesh")
	if err != nil {
		return nil, err
	}
	proxy, err := b.Closure(ctx, haproxy)
	if err != nil {
		return nil, err
	}
	edge := single(Edge, "/usr/local/bin/edge", programs["image-edge"], "8888:8888")
	edge.Layers = append([]layer{{Folder: proxy}}, edge.Layers...)
	return []description{
		ours,
		single(IstioHub+"/pilot:"+IstioTag, "/usr/local/bin/pilot-discovery", programs["pilot-discovery"], "1337:1337"),
		single(IstioHub+"/proxyv2:"+IstioTag, "/usr/local/bin/pilot-agent", programs["pilot-agent"], "1337:1337"),
		single(Pause, "/pause", programs["image-pause"], "65535:65535"),
		single(DNS, "/coredns", programs["coredns"], "65532:65532"),
		edge,
		single(Mesh, "/mesh", programs["image-mesh"], "65532:65532"),
	}, nil
}

// description is what the assembler is told; see test/cluster/images/assembler.
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

// single describes an image whose entry point is its one program.
func single(name, at, program, user string) description {
	d := description{Name: name, User: user, Entrypoint: []string{at}, Env: []string{searched}}
	d.add(at, program)
	return d
}

// add puts a program into the last layer.
func (d *description) add(at, program string) {
	if len(d.Layers) == 0 {
		d.Layers = []layer{{}}
	}
	last := &d.Layers[len(d.Layers)-1]
	last.Files = append(last.Files, file{Path: at, Source: program, Mode: 0o755})
	slices.SortFunc(last.Files, func(a, b file) int { return strings.Compare(a.Path, b.Path) })
}

var unsafe = regexp.MustCompile(`[^a-z0-9.]+`)

// assemble writes the tarball where the cache has none of these files.
func (d *description) assemble(ctx context.Context, b tools.Builder, assembler string) (string, error) {
	key, err := d.key(b.Cache, assembler)
	if err != nil {
		return "", err
	}
	name := "image-" + unsafe.ReplaceAllString(path.Base(d.Name), "-") + "-" + key + ".tar"
	return b.Once(ctx, name, func(target string) error {
		_, _ = fmt.Fprintf(b.Progress, "assembling image %s\n", d.Name)
		d.Output = target
		input, err := json.Marshal(d)
		if err != nil {
			return err
		}
		command := exec.CommandContext(ctx, assembler)
		command.Stdin = bytes.NewReader(input)
		if said, err := command.CombinedOutput(); err != nil {
			return errors.Join(err, errors.New(strings.TrimSpace(string(said))))
		}
		return nil
	})
}

// key hashes the description. What files hold is in their paths: folders of the
// cache are named by a key, or a package's version.
func (d *description) key(cache, assembler string) (string, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return "", err
	}
	parts := []string{strings.ReplaceAll(string(text), cache, "")}
	for _, source := range append(d.sources(), assembler) {
		relative, err := filepath.Rel(cache, source)
		if err != nil || !filepath.IsLocal(relative) {
			return "", fmt.Errorf("%s does not lie in the cache %s, so nobody knows when it changes", source, cache)
		}
		parts = append(parts, relative)
	}
	return tools.Key(parts...), nil
}

// sources are the files and folders that the image is made of.
func (d *description) sources() []string {
	var all []string
	for _, l := range d.Layers {
		if l.Folder != "" {
			all = append(all, l.Folder)
		}
		for _, f := range l.Files {
			all = append(all, f.Source)
		}
	}
	return all
}

// Names lists the images' names with their tags.
func Names(root string) ([]string, error) {
	version, err := appVersion(root)
	if err != nil {
		return nil, err
	}
	return []string{Product + ":" + version, IstioHub + "/pilot:" + IstioTag, IstioHub + "/proxyv2:" + IstioTag, Pause, DNS, Edge, Mesh}, nil
}

// Copy puts tarballs into a folder, under their names; where one file system holds
// both, as links.
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
