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

// ClusterNamespaces reads namespaces from a cache, and from the API server
// where the cache is behind.
type ClusterNamespaces struct {
	// Cache holds the metadata of all namespaces.
	Cache client.Reader
	// Live asks the API server.
	Live client.Reader
}

// Namespace implements Namespaces.
func (c *ClusterNamespaces) Namespace(ctx context.Context, name string, labelled bool) (policy.Namespace, error) {
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		return policy.Namespace{}, fmt.Errorf("%q is no name of a namespace: %s", clip(name), problems[0])
	}
	ns, err := read(ctx, c.Cache, name)
	if err == nil && (!labelled || ns.Labels[policy.InjectionLabel] == policy.InjectionEnabled) {
		return ns, nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return policy.Namespace{}, err
	}
	// The namespace, or its label, is younger than the cache.
	return read(ctx, c.Live, name)
}

func read(ctx context.Context, r client.Reader, name string) (policy.Namespace, error) {
	meta := NamespaceMetadata()
	if err := r.Get(ctx, types.NamespacedName{Name: name}, meta); err != nil {
		return policy.Namespace{}, err
	}
	return policy.Namespace{Name: name, Labels: meta.Labels, Annotations: meta.Annotations}, nil
}

// few reads a few objects at a time, and refuses more: who sends reviews of
// namespaces that do not exist must not have those of others wait for the answers.
type few struct {
	client.Reader
	places chan struct{}
}

// maxLive is how many namespaces are asked of the API server at once.
const maxLive = 8

func newFew(r client.Reader) few { return few{r, make(chan struct{}, maxLive)} }

// Get implements client.Reader.
func (f few) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	select {
	case f.places <- struct{}{}:
		defer func() { <-f.places }()
		return f.Reader.Get(ctx, key, object, options...)
	default:
		return fmt.Errorf("namespaces that are asked of the API server: %w", errCrowded)
	}
}

// NamespaceMetadata is the kind of object that the cache holds.
func NamespaceMetadata() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
}

// TrimNamespace drops what no decision needs before a namespace is cached:
// managed fields and the annotations of others, such as the one of kubectl
// apply that repeats the whole object.
func TrimNamespace(object any) (any, error) {
	meta, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return nil, fmt.Errorf("trim namespace: got %T", object)
	}
	meta.ManagedFields, meta.OwnerReferences, meta.Finalizers = nil, nil, nil
	for key := range meta.Annotations {
		if !strings.HasPrefix(key, policy.Domain) && key != policy.OpenShiftUIDRangeKey {
			delete(meta.Annotations, key)
		}
	}
	return meta, nil
}
