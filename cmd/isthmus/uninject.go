package main

import (
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/internal/manifest"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

func newUninjectCommand() *cobra.Command {
	var manifests manifestFlags
	cmd := &cobra.Command{
		Use:   "uninject -f FILE",
		Short: "Remove what inject added to manifests",
		Long: `Uninject restores workloads to their state before the injection, which the annotation isthmus.dev/status
describes, and prints all manifests. Workloads that are not injected are printed unchanged, byte for byte.

If a field that was injected has changed since, it fails and names the field.`,
		Example: `  # Show what would be removed
  isthmus uninject -f injected.yaml -o diff

  # Remove it from a Deployment in a cluster
  kubectl get deployment emissary -n emissary -o yaml | isthmus uninject -f - | kubectl replace -f -`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := manifests.check(cmd); err != nil {
				return err
			}
			return manifests.run(cmd, manifest.UninjectEditor(inject.Uninject))
		},
	}
	manifests.add(cmd)
	return cmd
}
