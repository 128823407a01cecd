package webhook

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// ClusterNamespaces reads namespaces from a cache, and from the API server if the
// cache is behind.
type ClusterNamespaces struct {
	// Cache holds the metadata of all namespaces.
	Cache client.Reader
	// Live reads from the API server.
	Live client.Reader
}

// Namespace implements Namespaces.
func (c *ClusterNamespaces) Namespace(ctx context.Context, name string, labelled bool) (policy.Namespace, error) {
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		return policy.Namespace{}, fmt.Errorf("invalid namespace name %q: %s", clip(name), problems[0])
	}
	ns, err := readNamespace(ctx, c.Cache, name)
	if err == nil && (!labelled || ns.Labels[policy.InjectionLabel] == policy.InjectionEnabled) {
		return ns, nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return policy.Namespace{}, err
	}
	// The namespace, or its label, is newer than the cache.
	return readNamespace(ctx, c.Live, name)
}

func readNamespace(ctx context.Context, r client.Reader, name string) (policy.Namespace, error) {
	namespace := NamespaceMetadata()
	if err := r.Get(ctx, types.NamespacedName{Name: name}, namespace); err != nil {
		return policy.Namespace{}, err
	}
	return policy.Namespace{Name: name, Labels: namespace.Labels, Annotations: namespace.Annotations}, nil
}

// maxLiveReads limits how many namespaces are read from the API server concurrently.
const maxLiveReads = 8

// limitedReader refuses reads while too many are in flight: a client that sends
// reviews of namespaces that do not exist must not delay the reviews of others.
type limitedReader struct {
	client.Reader
	semaphore chan struct{}
}

func newLimitedReader(r client.Reader) limitedReader {
	return limitedReader{r, make(chan struct{}, maxLiveReads)}
}

// Get implements client.Reader.
func (l limitedReader) Get(ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
	select {
	case l.semaphore <- struct{}{}:
		defer func() { <-l.semaphore }()
		return l.Reader.Get(ctx, key, into, options...)
	default:
		return fmt.Errorf("read namespace from the API server: %w", errOverloaded)
	}
}

// NamespaceMetadata returns an empty object of the kind that the cache holds.
func NamespaceMetadata() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
}

// TrimNamespace is the cache's transform. It drops what no decision needs: managed
// fields, and annotations such as the one of kubectl apply that repeats the whole
// object. It returns an error for an object of another kind.
func TrimNamespace(cached any) (any, error) {
	namespace, ok := cached.(*metav1.PartialObjectMetadata)
	if !ok {
		return nil, fmt.Errorf("trim namespace: got %T", cached)
	}
	namespace.ManagedFields, namespace.OwnerReferences, namespace.Finalizers = nil, nil, nil
	for key := range namespace.Annotations {
		if !strings.HasPrefix(key, policy.Domain) && key != policy.OpenShiftUIDRangeKey {
			delete(namespace.Annotations, key)
		}
	}
	return namespace, nil
}
