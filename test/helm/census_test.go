package helm

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	api "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
)

// census lists all of Isthmus that is in the cluster, of whatever kind, but for
// Events, which the API server forgets itself: "resource namespace/name", sorted.
func (c *cluster) census(t *testing.T) []string {
	t.Helper()
	resources, err := c.client.Discovery().ServerPreferredResources()
	require.NoError(t, err)
	client, err := metadata.NewForConfig(c.config)
	require.NoError(t, err)
	var found []string
	for _, list := range resources {
		group, err := api.ParseGroupVersion(list.GroupVersion)
		require.NoError(t, err)
		for _, resource := range list.APIResources {
			if resource.Name == "events" || !slices.Contains(resource.Verbs, "list") {
				continue
			}
			objects, err := client.Resource(group.WithResource(resource.Name)).List(t.Context(), metav1.ListOptions{})
			if apierrors.IsMethodNotSupported(err) || apierrors.IsNotFound(err) {
				continue // of a kind that only says that it can be listed
			}
			require.NoError(t, err, resource.Name)
			for _, object := range objects.Items {
				if strings.Contains(object.Name, "isthmus") {
					found = append(found, resource.Name+" "+object.Namespace+"/"+object.Name)
				}
			}
		}
	}
	slices.Sort(found)
	return found
}
