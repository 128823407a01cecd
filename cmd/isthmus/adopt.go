package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/internal/adopt"
	"github.com/isthmus-mesh/isthmus/internal/manifest"
)

func newAdoptCommand() *cobra.Command {
	manifests := manifestFlags{}
	var engine engineFlags
	var choices adoptFlags
	cmd := &cobra.Command{
		Use:   "adopt -f FILE",
		Short: "Turn manifests that are integrated with Istio by hand into plain ones",
		Long: `Adopt takes what was written by hand to give an edge its Istio identity out of manifests and of Helm values
(a container istio-proxy, or annotations for Istio's injector, with their volumes, mounts and variables), and
puts the one key in its place that has Isthmus do the same. Everything else comes out byte for byte as it went in.

By default it prints what would change. Standard error says in which fields the pod, once injected, differs
from what was written by hand, and why. What cannot be adopted without a loss is an error that names the
field and the way out; nothing is printed then, and the exit status is 1.`,
		Example: `  # See what would change, then change it
  isthmus adopt -f emissary.yaml
  isthmus adopt -f emissary.yaml -o yaml > plain.yaml

  # Apply it as a patch to the file, comments and all
  isthmus adopt -q -f emissary.yaml | patch emissary.yaml

  # Helm values; the namespace is labelled once, and no pod asks for itself
  isthmus adopt -f values.yaml -n ambassador --by namespace`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := choices.options()
			if err != nil {
				return err
			}
			e, err := engine.forManifests(cmd, &manifests)
			if err != nil {
				return err
			}
			return manifests.transform(cmd, func(sources []manifest.Source) (manifest.Result, error) {
				return manifest.Adopt(sources, manifests.namespace, e, options)
			})
		},
	}
	manifests.add(cmd)
	manifests.prints(cmd, "diff")
	choices.add(cmd)
	engine.add(cmd)
	return cmd
}

// adoptFlags are the user's choices in an adoption.
type adoptFlags struct {
	by        string
	keepImage bool
}

func (f *adoptFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.by, "by", "pod", "what opts the edge in: pod (an annotation on it) or namespace (a label that you put on it)")
	flags.BoolVar(&f.keepImage, "keep-image", false, "keep the image of a sidecar written by hand, not the mesh's own")
}

func (f *adoptFlags) options() (adopt.Options, error) {
	if !slices.Contains([]string{"pod", "namespace"}, f.by) {
		return adopt.Options{}, usagef("--by %q: want pod or namespace", f.by)
	}
	return adopt.Options{ByNamespace: f.by == "namespace", KeepImage: f.keepImage}, nil
}
