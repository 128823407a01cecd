package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/internal/mesh"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// requestTimeout ends a request to a cluster that does not answer.
const requestTimeout = 15 * time.Second

// clusterFlags say from which cluster and Istio the mesh settings come.
type clusterFlags struct {
	enabled        bool
	kubeconfig     string
	context        string
	istioNamespace string
	revision       string
}

func (f *clusterFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.enabled, "from-cluster", false, "take the mesh settings from the Istio in the current cluster")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig for --from-cluster (default: $KUBECONFIG, then ~/.kube/config)")
	flags.StringVar(&f.context, "context", "", "context in the kubeconfig for --from-cluster (default: the current one)")
	flags.StringVar(&f.istioNamespace, "istio-namespace", "istio-system", "namespace of istiod for --from-cluster")
	flags.StringVar(&f.revision, "revision", "", "revision of Istio for --from-cluster, or a tag that points to one (default: the default one)")
}

// check refuses flags that would be ignored.
func (f *clusterFlags) check(flags *pflag.FlagSet) error {
	for _, name := range []string{"kubeconfig", "context", "istio-namespace", "revision"} {
		if flags.Changed(name) && !f.enabled {
			return usagef("--%s has no effect without --from-cluster: add --from-cluster, or leave --%s out", name, name)
		}
	}
	return nil
}

// discovery is what a cluster says of its mesh.
type discovery struct {
	settings mesh.Settings
	// mesh returns the settings of a revision or tag that a pod asks for.
	mesh func(revision string) (patches.Mesh, error)
	// injector says who injects the pods of a revision or tag.
	injector func(revision string) (inject.Injector, error)
}

// discover asks the cluster. explicit settings win over the cluster's.
func (f *clusterFlags) discover(ctx context.Context, explicit patches.Mesh) (discovery, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: f.context}).ClientConfig()
	if err != nil {
		return discovery{}, err
	}
	config.Timeout = requestTimeout
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return discovery{}, err
	}
	return f.discoverWith(ctx, client, explicit)
}

func (f *clusterFlags) discoverWith(ctx context.Context, client kubernetes.Interface, explicit patches.Mesh) (discovery, error) {
	found, err := mesh.Discover(ctx, client, f.istioNamespace, explicit)
	if err != nil {
		return discovery{}, err
	}
	settings, err := found.Settings(f.revision)
	if err != nil {
		return discovery{}, err
	}
	return discovery{settings: settings, injector: found.Injector, mesh: func(revision string) (patches.Mesh, error) {
		asked, err := found.Settings(cmp.Or(revision, f.revision))
		return asked.Mesh, err
	}}, nil
}

// reportDiscovered prints every setting that is no default, and what could not
// be used.
func reportDiscovered(info, warn io.Writer, s mesh.Settings) {
	said := false
	for _, line := range s.Describe() {
		if !strings.HasSuffix(line, "("+mesh.SourceDefault+")") {
			_, _ = fmt.Fprintf(info, "mesh: %s\n", line)
			said = true
		}
	}
	if !said {
		_, _ = fmt.Fprintln(info, "mesh: defaults (the cluster says nothing else)")
	}
	for _, w := range s.Warnings {
		_, _ = fmt.Fprintf(warn, "warning: mesh: %s\n", w)
	}
}

// reportExplicit prints the settings that a file gives.
func reportExplicit(info io.Writer, file string, m patches.Mesh) error {
	if file == "" {
		_, _ = fmt.Fprintln(info, "mesh: defaults (no --settings, no --from-cluster)")
		return nil
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var given map[string]any
	if err := json.Unmarshal(raw, &given); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		_, _ = fmt.Fprintf(info, "mesh: %s=%v (%s)\n", name, given[name], file)
	}
	if len(given) == 0 {
		_, _ = fmt.Fprintf(info, "mesh: defaults (%s sets none)\n", file)
	}
	return nil
}
