package adopt

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// meshSettings are variables and flags of the agent that identify its mesh.
var meshSettings = []struct {
	variable string
	flags    []string
}{
	{"TRUST_DOMAIN", []string{"--trust-domain", "--trustDomain"}},
	{"CA_ADDR", nil},
	{"PILOT_CERT_PROVIDER", nil},
	{"ISTIO_META_NETWORK", nil},
	{"ISTIO_META_CLUSTER_ID", nil},
}

// warnMeshDifferences warns if the manual sidecar and that of Isthmus have settings of
// different meshes. The settings that Isthmus uses are then not those of the cluster.
func warnMeshDifferences(before, after *corev1.Container) (warnings []string) {
	if before == nil || after == nil {
		return nil
	}
	args := make([]any, len(before.Args))
	for i := range before.Args {
		args[i] = before.Args[i]
	}
	flags := parseFlags(args)
	for _, setting := range meshSettings {
		now := inject.FindEnv(after, setting.variable)
		name, was := setting.variable, ""
		if v := inject.FindEnv(before, setting.variable); v != nil {
			was = v.Value
		}
		for _, flag := range setting.flags {
			if v, ok := flags[flag].(string); ok && was == "" {
				name, was = flag, v
			}
		}
		if was != "" && now != nil && was != now.Value {
			warnings = append(warnings, fmt.Sprintf("the sidecar written by hand sets %s to %q, and the mesh settings used here say %q; check them, with --from-cluster or --settings", name, was, now.Value))
		}
	}
	return warnings
}
