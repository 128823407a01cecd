package controller

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// PublisherRole is the ClusterRole of the in-pod publisher, which the chart
// brings, and the name of the RoleBindings to it.
const PublisherRole = "isthmus-publisher"

var publisherBinding = resource{
	GroupVersionResource: schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	kind:                 "RoleBinding", name: PublisherRole,
}

// bindPublisher gives the service accounts whose pods carry the publisher the
// right to write their namespace's Secret, and nobody else.
func (r *reconciler) bindPublisher(ctx context.Context, p *place, claims []claim) error {
	var accounts []string
	for _, c := range claims {
		if c.options.Source == policy.Agent && c.uid != "" {
			accounts = append(accounts, c.serviceAccount)
		}
	}
	if len(accounts) == 0 {
		return r.notWanted(ctx, p, publisherBinding)
	}
	slices.Sort(accounts)
	var subjects []any
	for _, name := range slices.Compact(accounts) {
		subjects = append(subjects, map[string]any{"kind": "ServiceAccount", "name": name, "namespace": p.namespace})
	}
	return r.own(ctx, p, publisherBinding, map[string]any{
		"roleRef":  map[string]any{"apiGroup": publisherBinding.Group, "kind": "ClusterRole", "name": PublisherRole},
		"subjects": subjects,
	})
}
