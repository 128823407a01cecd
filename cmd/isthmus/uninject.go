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
		Short: "Take back what inject did to manifests",
		Long: `Uninject restores injected workloads to what they were, from the status annotation that the injection
left, and prints all manifests. What is not injected comes out byte for byte as it went in.

Where something that was injected has been changed since, it refuses and names the field.`,
		Example: `  # See what would be taken back
  isthmus uninject -f injected.yaml -o diff

  # Take it back in a running cluster
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
