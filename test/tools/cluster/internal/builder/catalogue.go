// Package builder builds the programs that tests and checks run into a cache outside
// of the repository. go.mod files pin their versions.
package builder

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Tool is a program: its name in the catalogue and in the cache, and the import path
// of its main package.
type Tool struct {
	Name    string
	Package string
}

// Module is a Go module that pins the versions of related tools.
type Module struct {
	// Name is the first part of the name of the module's folder in the cache.
	Name string
	// Folder is the go.mod's folder, relative to the repository's root.
	Folder string
	// Tools are the programs that this module pins.
	Tools []Tool
	// linkerVariables are names and values for the linker's flag -X. In a value,
	// "{path}" stands for the version of the required module of that path,
	// "{path|bare}" for the version without its "v", and "{path|minor}" for its minor
	// version.
	linkerVariables [][2]string
}

// testedMinor is the minor version of Kubernetes that the chart's tools assume.
// Helm's default is 1.20.
const testedMinor = "36"

// Catalogue lists every module that can be built.
func Catalogue() []Module {
	return []Module{
		{
			Name:   "kubernetes",
			Folder: "test/tools/kubernetes",
			Tools: []Tool{
				{"etcd", "go.etcd.io/etcd/server/v3"},
				{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
				{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
				{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
				{"kubelet", "k8s.io/kubernetes/cmd/kubelet"},
				{"kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"},
				{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
			},
			// Clients cannot parse the version of a build without these.
			linkerVariables: [][2]string{
				{"k8s.io/component-base/version.gitVersion", "{k8s.io/kubernetes}"},
				{"k8s.io/component-base/version.gitMajor", "1"},
				{"k8s.io/component-base/version.gitMinor", "{k8s.io/kubernetes|minor}"},
			},
		},
		{
			Name:   "containerd",
			Folder: "test/tools/containerd",
			Tools: []Tool{
				{"containerd", "github.com/containerd/containerd/v2/cmd/containerd"},
				{"containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
				{"ctr", "github.com/containerd/containerd/v2/cmd/ctr"},
			},
			linkerVariables: [][2]string{
				{"github.com/containerd/containerd/v2/version.Version", "{github.com/containerd/containerd/v2}"},
			},
		},
		{
			Name:   "coredns",
			Folder: "test/tools/coredns",
			// Our own main package, with only the CoreDNS plugins that a cluster needs.
			Tools: []Tool{
				{"coredns", "github.com/isthmus-mesh/isthmus/test/tools/coredns"},
			},
		},
		{
			Name:   "istio",
			Folder: "test/tools/pilot",
			Tools: []Tool{
				{"pilot-discovery", "istio.io/istio/pilot/cmd/pilot-discovery"},
				{"pilot-agent", "istio.io/istio/pilot/cmd/pilot-agent"},
			},
			linkerVariables: [][2]string{
				{"istio.io/istio/pkg/version.buildVersion", "{istio.io/istio}"},
			},
		},
		{
			Name:   "cert-manager",
			Folder: "test/tools/cert-manager-controllers",
			// Our own main package, because the module of cert-manager's cannot be required.
			Tools: []Tool{
				{"cert-manager-controllers", "github.com/isthmus-mesh/isthmus/test/tools/cert-manager-controllers"},
			},
			linkerVariables: [][2]string{
				{"github.com/cert-manager/cert-manager/pkg/util.AppVersion", "{github.com/cert-manager/cert-manager}"},
			},
		},
		{
			Name:   "stand-in",
			Folder: "test/tools/standin",
			// Our own stand-ins for programs for which the guides have no images.
			Tools: []Tool{
				{"stand-in-node", "github.com/isthmus-mesh/isthmus/test/tools/standin/kubenode"},
				{"stand-in-edge", "github.com/isthmus-mesh/isthmus/test/tools/standin/emissary"},
				{"stand-in-service", "github.com/isthmus-mesh/isthmus/test/tools/standin/workload"},
			},
		},
		{
			Name:   "images",
			Folder: "test/tools/images",
			// Our own programs: the contents of the images of a test's node, and the
			// program that assembles these images.
			Tools: []Tool{
				{"image-assembler", "github.com/isthmus-mesh/isthmus/test/tools/images/assembler"},
				{"image-pause", "github.com/isthmus-mesh/isthmus/test/tools/images/pause"},
				{"image-edge", "github.com/isthmus-mesh/isthmus/test/tools/images/haproxyedge"},
				{"image-mesh", "github.com/isthmus-mesh/isthmus/test/tools/images/meshservice"},
			},
		},
		{
			Name:   "istio-cni",
			Folder: "test/tools/istiocni",
			// Our own main package around istio-cni's code.
			Tools: []Tool{
				{"stand-in-cni", "github.com/isthmus-mesh/isthmus/test/tools/istiocni"},
			},
		},
		{
			Name:   "helm",
			Folder: "test/tools/helm",
			Tools: []Tool{
				{"helm", "helm.sh/helm/v3/cmd/helm"},
				{"helm-docs", "github.com/norwoodj/helm-docs/cmd/helm-docs"},
				{"helm-unittest", "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"},
			},
			linkerVariables: [][2]string{
				{"main.version", "{github.com/norwoodj/helm-docs|bare}"},
				{"helm.sh/helm/v3/internal/version.version", "{helm.sh/helm/v3}"},
				{"helm.sh/helm/v3/internal/version.gitTreeState", "clean"},
				{"helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor", "1"},
				{"helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor", testedMinor},
				{"helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor", "1"},
				{"helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor", testedMinor},
			},
		},
		{
			Name:   "golangci-lint",
			Folder: "test/tools/golangci-lint",
			Tools: []Tool{
				{"golangci-lint", "github.com/golangci/golangci-lint/v2/cmd/golangci-lint"},
			},
			// golangci-lint shows its version only together with a release date.
			linkerVariables: [][2]string{
				{"main.version", "{github.com/golangci/golangci-lint/v2|bare}"},
				{"main.commit", "{github.com/golangci/golangci-lint/v2}"},
				{"main.date", "unknown"},
			},
		},
	}
}

// Names returns the names of the catalogue's tools in its order, without the tools
// that come from a package.
func Names() []string {
	var names []string
	for _, module := range Catalogue() {
		for _, tool := range module.Tools {
			names = append(names, tool.Name)
		}
	}
	return names
}

// Find returns the tool of this name and its module. The error for an unknown name
// lists all names, including the tools that come from a package.
func Find(name string) (Module, Tool, error) {
	for _, module := range Catalogue() {
		for _, tool := range module.Tools {
			if tool.Name == name {
				return module, tool, nil
			}
		}
	}
	known := Names()
	for _, p := range PackagedTools() {
		known = append(known, p.Name)
	}
	return Module{}, Tool{}, fmt.Errorf("unknown tool %q: choose from %s", name, strings.Join(known, ", "))
}

// Root returns the repository's root: the nearest folder at or above from with the
// go.mod of the control plane.
func Root(from string) (string, error) {
	marker := filepath.Join("test", "tools", "kubernetes", "go.mod")
	for folder := from; ; folder = filepath.Dir(folder) {
		if _, err := os.Stat(filepath.Join(folder, marker)); err == nil {
			return folder, nil
		}
		if folder == filepath.Dir(folder) {
			return "", fmt.Errorf("no %s at or above %s: run this inside the repository", marker, from)
		}
	}
}

var placeholder = regexp.MustCompile(`^\{([^|}]+)(?:\|(bare|minor))?\}$`)

// linkerFlags returns the value for go build's -ldflags, with the versions that this
// go.mod requires.
func (m Module) linkerFlags(goMod string) (string, error) {
	flags := []string{"-s", "-w"}
	for _, variable := range m.linkerVariables {
		value := variable[1]
		if found := placeholder.FindStringSubmatch(value); found != nil {
			version, err := requiredVersion(goMod, found[1])
			if err != nil {
				return "", fmt.Errorf("%s/go.mod: %w", m.Folder, err)
			}
			switch found[2] {
			case "bare":
				version = strings.TrimPrefix(version, "v")
			case "minor":
				version = strings.Split(version, ".")[1]
			}
			value = version
		}
		flags = append(flags, "-X", variable[0]+"="+value)
	}
	return strings.Join(flags, " "), nil
}

var versionFormat = regexp.MustCompile(`^v\d+\.\d+\.\d+`)

// requiredVersion returns the version of a module that a go.mod requires.
func requiredVersion(goMod, path string) (string, error) {
	for line := range strings.Lines(goMod) {
		fields := strings.Fields(line)
		at := slices.Index(fields, path)
		if at < 0 || at+1 >= len(fields) || (at > 0 && fields[at-1] != "require") {
			continue
		}
		if version := fields[at+1]; versionFormat.MatchString(version) {
			return version, nil
		}
	}
	return "", fmt.Errorf("no version of %s is required", path)
}
