package adopt

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// meshFacts are variables and flags of the agent that say which mesh it is in.
var meshFacts = []struct {
	variable string
	flags    []string
}{
	{"TRUST_DOMAIN", []string{"--trust-domain", "--trustDomain"}},
	{"CA_ADDR", nil},
	{"PILOT_CERT_PROVIDER", nil},
	{"ISTIO_META_NETWORK", nil},
	{"ISTIO_META_CLUSTER_ID", nil},
}

// otherMesh says where the sidecar written by hand and that of Isthmus are in
// different meshes: then the settings that were used are not those of its cluster.
func otherMesh(before, after *corev1.Container) (warnings []string) {
	if before == nil || after == nil {
		return nil
	}
	words := make([]any, len(before.Args))
	for i := range before.Args {
		words[i] = before.Args[i]
	}
	given := flagsOf(words)
	for _, f := range meshFacts {
		is := inject.FindEnv(after, f.variable)
		name, was := f.variable, ""
		if v := inject.FindEnv(before, f.variable); v != nil {
			was = v.Value
		}
		for _, flag := range f.flags {
			if v, ok := given[flag].(string); ok && was == "" {
				name, was = flag, v
			}
		}
		if was != "" && is != nil && was != is.Value {
			warnings = append(warnings, fmt.Sprintf("the sidecar written by hand sets %s to %q, and the mesh settings used here say %q; check them, with --from-cluster or --settings", name, was, is.Value))
		}
	}
	return warnings
}
