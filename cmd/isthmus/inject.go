package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/internal/manifest"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

func newInjectCommand() *cobra.Command {
	var manifests manifestFlags
	var engine engineFlags
	cmd := &cobra.Command{
		Use:   "inject -f FILE",
		Short: "Give the edge workloads in manifests their Istio identity, offline",
		Long: `Inject edits the edge workloads in manifests as the webhook would edit their pods, and prints all
manifests. What is no edge, and what is no workload, comes out byte for byte as it went in.

Every workload counts as opted in by its namespace; a Namespace in the same input adds its labels and
annotations. Standard error says what was decided on each workload and which mesh settings were used.
If anything is wrong with any document, nothing is printed and the exit status is 1.`,
		Example: `  # See what would change, then apply it
  isthmus inject -f emissary.yaml -o diff
  isthmus inject -f emissary.yaml | kubectl apply -f -

  # Mode secret, which adds no sidecar: the namespace or the pod says so
  isthmus inject -f samples/secret/nginx.yaml -o diff

  # Inject what Helm renders, with the mesh settings of the current cluster
  helm template emissary datawire/emissary-ingress -n emissary | isthmus inject -n emissary -f - --from-cluster`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := engine.forManifests(cmd, &manifests)
			if err != nil {
				return err
			}
			return manifests.run(cmd, manifest.InjectEditor(e))
		},
	}
	manifests.add(cmd)
	engine.add(cmd)
	return cmd
}

// engineFlags are the flags that decide how the engine is set up.
type engineFlags struct {
	settings string
	profiles []string
	cluster  clusterFlags
}

func (f *engineFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.settings, "settings", "", "settings file, as the chart renders it; its values win over the cluster's")
	flags.StringArrayVar(&f.profiles, "profiles", nil, "file with more profiles; can be repeated")
	f.cluster.add(flags)
}

func (f *engineFlags) check(cmd *cobra.Command) error { return f.cluster.check(cmd.Flags()) }

// forManifests checks the flags of a command that edits manifests, and makes its
// engine.
func (f *engineFlags) forManifests(cmd *cobra.Command, manifests *manifestFlags) (*inject.Engine, error) {
	if err := manifests.check(cmd); err != nil {
		return nil, err
	}
	if err := f.check(cmd); err != nil {
		return nil, err
	}
	info := cmd.ErrOrStderr()
	if manifests.quiet {
		info = io.Discard
	}
	return f.engine(cmd.Context(), info, cmd.ErrOrStderr())
}

// engine makes the engine, and says which mesh settings it works with.
func (f *engineFlags) engine(ctx context.Context, info, warn io.Writer) (*inject.Engine, error) {
	options, err := engineOptions(f.settings, f.profiles)
	if err != nil {
		return nil, err
	}
	if f.cluster.enabled {
		discovered, err := f.cluster.discover(ctx, options.Settings.Mesh)
		if err != nil {
			return nil, fmt.Errorf("mesh settings from the cluster: %w", err)
		}
		options.Mesh, options.Injector = discovered.mesh, discovered.injector
		reportDiscovered(info, warn, discovered.settings)
	} else if err := reportExplicit(info, f.settings, options.Settings.Mesh); err != nil {
		return nil, err
	}
	return inject.New(options)
}

// engineOptions reads the files that an engine is made of.
func engineOptions(settings string, profiles []string) (inject.Options, error) {
	options := inject.Options{Version: thisBuild().Version}
	if settings != "" {
		data, err := readFile(settings)
		if err != nil {
			return options, err
		}
		if options.Settings, err = inject.ParseSettings(settings, data); err != nil {
			return options, err
		}
	}
	var err error
	if options.Profiles, err = patches.BuiltIn(); err != nil {
		return options, err
	}
	for _, path := range profiles {
		data, err := readFile(path)
		if err != nil {
			return options, err
		}
		if err := options.Profiles.Add(path, data); err != nil {
			return options, err
		}
	}
	return options, nil
}
