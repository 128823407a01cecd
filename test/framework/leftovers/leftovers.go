// Package leftovers stands for the search for leftovers after an uninstallation: it lists
// every object of a cluster, of any kind, that has isthmus in its name.
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

// transient are the resources that are created and deleted with other objects, or that
// the API server expires.
var transient = []string{"events", "endpoints", "endpointslices", "pods", "replicasets", "controllerrevisions"}

// nodeName is the name of the one node of test/tools/cluster. Objects of the node have the
// same name; its Lease is created ten seconds after it.
const nodeName = "isthmus-node"

// List returns all objects that have isthmus in their name, except the node's, as
// "resource namespace/name", sorted.
func List(ctx context.Context, config *rest.Config) ([]string, error) {
	discoveryClient, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	resources, err := discoveryClient.ServerPreferredResources()
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
			if slices.Contains(transient, resource.Name) || !slices.Contains(resource.Verbs, "list") {
				continue
			}
			objects, err := client.Resource(group.WithResource(resource.Name)).List(ctx, metav1.ListOptions{})
			if apierrors.IsMethodNotSupported(err) || apierrors.IsNotFound(err) {
				continue // discovery reports the verb list, but the resource has none
			}
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", resource.Name, err)
			}
			for _, object := range objects.Items {
				if strings.Contains(object.Name, "isthmus") && object.Name != nodeName {
					found = append(found, resource.Name+" "+object.Namespace+"/"+object.Name)
				}
			}
		}
	}
	slices.Sort(found)
	return found, nil
}
