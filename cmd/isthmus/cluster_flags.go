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

// requestTimeout limits every request to the cluster.
const requestTimeout = 15 * time.Second

// clusterFlags are the flags that select the cluster and Istio for the mesh settings.
type clusterFlags struct {
	enabled        bool
	kubeconfig     string
	context        string
	istioNamespace string
	revision       string
}

func (f *clusterFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.enabled, "from-cluster", false, "discover the mesh settings from Istio in the current cluster")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig for --from-cluster (default: $KUBECONFIG, then ~/.kube/config)")
	flags.StringVar(&f.context, "context", "", "context in the kubeconfig for --from-cluster (default: the current one)")
	flags.StringVar(&f.istioNamespace, "istio-namespace", "istio-system", "namespace of istiod for --from-cluster")
	flags.StringVar(&f.revision, "revision", "", "revision or revision tag of Istio for --from-cluster (default: the default revision)")
}

// check refuses flags that have no effect without --from-cluster.
func (f *clusterFlags) check(flags *pflag.FlagSet) error {
	for _, name := range []string{"kubeconfig", "context", "istio-namespace", "revision"} {
		if flags.Changed(name) && !f.enabled {
			return usagef("--%s has no effect without --from-cluster: add --from-cluster, or leave --%s out", name, name)
		}
	}
	return nil
}

// discoveredMesh is what was discovered from a cluster.
type discoveredMesh struct {
	settings mesh.Settings
	// mesh returns the settings of a revision or tag.
	mesh func(revision string) (patches.Mesh, error)
	// injector returns the injector of a revision or tag.
	injector func(revision string) (inject.Injector, error)
}

// discover reads the settings from the cluster. explicit settings win over the
// cluster's.
func (f *clusterFlags) discover(ctx context.Context, explicit patches.Mesh) (discoveredMesh, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: f.context}).ClientConfig()
	if err != nil {
		return discoveredMesh{}, err
	}
	config.Timeout = requestTimeout
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return discoveredMesh{}, err
	}
	return f.discoverWith(ctx, client, explicit)
}

func (f *clusterFlags) discoverWith(ctx context.Context, client kubernetes.Interface, explicit patches.Mesh) (discoveredMesh, error) {
	found, err := mesh.Discover(ctx, client, f.istioNamespace, explicit)
	if err != nil {
		return discoveredMesh{}, err
	}
	settings, err := found.Settings(f.revision)
	if err != nil {
		return discoveredMesh{}, err
	}
	return discoveredMesh{settings: settings, injector: found.Injector, mesh: func(revision string) (patches.Mesh, error) {
		settings, err := found.Settings(cmp.Or(revision, f.revision))
		return settings.Mesh, err
	}}, nil
}

// reportDiscovered prints every setting that is not a default, and the warnings of the
// discovery.
func reportDiscovered(info, warn io.Writer, s mesh.Settings) {
	printed := false
	for _, line := range s.Describe() {
		if !strings.HasSuffix(line, "("+mesh.SourceDefault+")") {
			_, _ = fmt.Fprintf(info, "mesh: %s\n", line)
			printed = true
		}
	}
	if !printed {
		_, _ = fmt.Fprintln(info, "mesh: defaults (the cluster sets nothing else)")
	}
	for _, w := range s.Warnings {
		_, _ = fmt.Fprintf(warn, "warning: mesh: %s\n", w)
	}
}

// reportExplicit prints the settings of a file.
func reportExplicit(info io.Writer, file string, m patches.Mesh) error {
	if file == "" {
		_, _ = fmt.Fprintln(info, "mesh: defaults (no --settings, no --from-cluster)")
		return nil
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		_, _ = fmt.Fprintf(info, "mesh: %s=%v (%s)\n", name, fields[name], file)
	}
	if len(fields) == 0 {
		_, _ = fmt.Fprintf(info, "mesh: defaults (%s sets none)\n", file)
	}
	return nil
}
