package main

import (
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/internal/manifest"
)

func newInjectCommand() *cobra.Command {
	var manifests manifestFlags
	var engine engineFlags
	cmd := &cobra.Command{
		Use:   "inject -f FILE",
		Short: "Inject edge workloads in manifests, without a webhook",
		Long: `Inject edits the edge workloads in manifests as the webhook would edit their pods, and prints all
manifests. All other workloads and objects are printed unchanged, byte for byte.

Every workload counts as opted in by its namespace. If the input contains the Namespace, its labels and
annotations apply too. The decision on each workload and the mesh settings are printed on standard error,
and so is what can hold an edge and is not looked into, such as a HelmRelease.
If any document is invalid, no manifest is printed and the exit status is 1.`,
		Example: `  # Show what would change, then apply the injected manifests
  isthmus inject -f emissary.yaml -o diff
  isthmus inject -f emissary.yaml | kubectl apply -f -

  # Show what changes in mode secret, which adds no sidecar
  isthmus inject -f samples/secret/nginx.yaml -o diff

  # Inject the output of Helm, with the mesh settings of the current cluster
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
