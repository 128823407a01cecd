// Package leftovers stands for the search after an uninstallation: it finds every object
// of a cluster that has isthmus in its name, of whatever kind.
//
// Tiers: test/integration and test/e2e.
package leftovers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// passing are kinds that come and go with others or are forgotten by the API server
// itself.
var passing = []string{"events", "endpoints", "endpointslices", "pods", "replicasets", "controllerrevisions"}

// node is the name of the one node of test/tools/cluster. What belongs to it has it too, and
// its Lease comes ten seconds after it.
const node = "isthmus-node"

// List returns everything that has isthmus in its name, as "resource namespace/name",
// sorted, but for the node.
func List(ctx context.Context, config *rest.Config) ([]string, error) {
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	resources, err := kinds.ServerPreferredResources()
	if err != nil {
		return nil, fmt.Errorf("ask for the kinds of objects: %w", err)
	}
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, list := range resources {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, resource := range list.APIResources {
			if slices.Contains(passing, resource.Name) || !slices.Contains(resource.Verbs, "list") {
				continue
			}
			objects, err := client.Resource(group.WithResource(resource.Name)).List(ctx, metav1.ListOptions{})
			if apierrors.IsMethodNotSupported(err) || apierrors.IsNotFound(err) {
				continue // of a kind that only says that it can be listed
			}
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", resource.Name, err)
			}
			for _, object := range objects.Items {
				if strings.Contains(object.Name, "isthmus") && object.Name != node {
					found = append(found, resource.Name+" "+object.Namespace+"/"+object.Name)
				}
			}
		}
	}
	slices.Sort(found)
	return found, nil
}
