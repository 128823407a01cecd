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
		Short: "Convert manifests that were integrated with Istio by hand",
		Long: `Adopt removes a manual Istio integration of an edge from manifests or Helm values (a container istio-proxy,
or annotations for Istio's injector, with their volumes, mounts and variables) and adds the annotation or
label that makes Isthmus inject the edge instead. Everything else is printed unchanged, byte for byte.

By default it prints a diff. Standard error lists the fields in which the injected pod will differ from the
manual integration, and why. If something cannot be adopted without a loss, the error names the field and
the solution, no manifest is printed and the exit status is 1.`,
		Example: `  # Show what would change, then convert the manifests
  isthmus adopt -f emissary.yaml
  isthmus adopt -f emissary.yaml -o yaml > plain.yaml

  # Patch the file and keep its comments
  isthmus adopt -q -f emissary.yaml | patch emissary.yaml

  # Convert Helm values; the edge is opted in by the label of its namespace
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
	manifests.setDefaultOutput(cmd, "diff")
	choices.add(cmd)
	engine.add(cmd)
	return cmd
}

// adoptFlags are the flags that only adopt has.
type adoptFlags struct {
	by        string
	keepImage bool
}

func (f *adoptFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.by, "by", "pod", "how the edge is opted in: pod (adopt adds an annotation) or namespace (you set its label)")
	flags.BoolVar(&f.keepImage, "keep-image", false, "keep the image of the existing sidecar instead of using the mesh's image")
}

func (f *adoptFlags) options() (adopt.Options, error) {
	if !slices.Contains([]string{"pod", "namespace"}, f.by) {
		return adopt.Options{}, usagef("--by %q: want pod or namespace", f.by)
	}
	return adopt.Options{ByNamespace: f.by == "namespace", KeepImage: f.keepImage}, nil
}
