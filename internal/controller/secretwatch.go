package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// repairPriority is the priority of a namespace with a Secret that somebody changed:
// it comes before those that wait for their regular check, for the mesh's new roots or
// for a certificate authority that is back.
const repairPriority = 1

// secretWatches watches the Secrets of all names that the controller writes. It is a
// source of a controller: only the leader watches.
type secretWatches struct {
	client metadata.Interface
	// namespaces is empty for all namespaces.
	namespaces, names []string
	versions          *secretVersions
}

// Start implements source.Source. It does not wait for the first lists: until then,
// and where a watch is forbidden, the regular checks find changes.
func (w *secretWatches) Start(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	w.versions.start(func(namespace string, delay time.Duration) {
		request := reconcile.Request{NamespacedName: types.NamespacedName{Name: namespace}}
		if prioritized, ok := queue.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
			prioritized.AddWithOpts(priorityqueue.AddOpts{After: delay, Priority: ptr.To(repairPriority)}, request)
			return
		}
		queue.AddAfter(request, delay)
	})
	namespaces := w.namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, namespace := range namespaces {
		for _, name := range w.names {
			go (&secretWatch{client: w.client, namespace: namespace, name: name, versions: w.versions}).run(ctx)
		}
	}
	return nil
}

// secretWatch watches the metadata of the Secrets of one name. No Secret is cached:
// each version goes to secretVersions. A role that grants list and watch on this name
// only allows it, because the API server takes the name from the field selector.
type secretWatch struct {
	client metadata.Interface
	// namespace is empty for all namespaces.
	namespace, name string
	versions        *secretVersions
}

// run watches until ctx ends.
func (w *secretWatch) run(ctx context.Context) {
	secrets := w.client.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(w.namespace)
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, w.name).String()
	listWatch := &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			return secrets.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			return secrets.Watch(ctx, options)
		},
	}
	toolscache.NewReflectorWithOptions(
		toolscache.ToListWatcherWithWatchListSemantics(listWatch, w.client), &metav1.PartialObjectMetadata{}, w,
		toolscache.ReflectorOptions{Name: "secret " + w.name},
	).RunWithContext(ctx)
}

// Add implements toolscache.ReflectorStore.
func (w *secretWatch) Add(o any) error { return w.Update(o) }

// Update implements toolscache.ReflectorStore.
func (w *secretWatch) Update(o any) error {
	secret, err := metadataFrom(o)
	if err == nil {
		w.versions.announce(secret.Namespace, secret.Name, secret.ResourceVersion)
	}
	return err
}

// Delete implements toolscache.ReflectorStore.
func (w *secretWatch) Delete(o any) error {
	secret, err := metadataFrom(o)
	if err == nil {
		w.versions.announce(secret.Namespace, secret.Name, "")
	}
	return err
}

// Replace implements toolscache.ReflectorStore.
func (w *secretWatch) Replace(list []any, _ string) error {
	versions := make(map[string]string, len(list))
	for _, o := range list {
		secret, err := metadataFrom(o)
		if err != nil {
			return err
		}
		versions[secret.Namespace] = secret.ResourceVersion
	}
	w.versions.replace(w.name, func(namespace string) bool { return w.namespace == "" || w.namespace == namespace }, versions)
	return nil
}

// Resync implements toolscache.ReflectorStore.
func (w *secretWatch) Resync() error { return nil }

func metadataFrom(o any) (*metav1.PartialObjectMetadata, error) {
	secret, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return nil, fmt.Errorf("a watch of secrets delivered %T: want metadata", o)
	}
	return secret, nil
}
