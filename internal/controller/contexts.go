package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// tlsContexts are Emissary's objects that configure TLS to an upstream.
var tlsContexts = schema.GroupVersionResource{Group: "getambassador.io", Version: "v3alpha1", Resource: "tlscontexts"}

// contextKind is the kind of a TLSContext of a name.
func contextKind(name string) ownedKind {
	return ownedKind{GroupVersionResource: tlsContexts, kind: "TLSContext", name: name, optional: true}
}

// contextNames are the names of all TLSContexts that the controller keeps.
func contextNames(allowed []string) []string {
	return withCompanions(allowed, policy.TCPSuffix)
}

// withCompanions are names, each with its companion of that suffix behind it.
func withCompanions(names []string, suffix string) []string {
	var all []string
	for _, name := range names {
		all = append(all, name, name+suffix)
	}
	return all
}

// contextIndex knows the TLSContexts of the cluster that have a name which the
// controller keeps: Emissary confuses two of one name, in whatever namespaces. It
// follows a watch, and the controller's own writes before the watch announces them. It
// is safe for concurrent use.
type contextIndex struct {
	client  dynamic.Interface
	names   []string
	requeue chan<- event.GenericEvent

	mu sync.Mutex
	// isListed is true once the watch has delivered a list, or has learnt that the
	// cluster has no TLSContexts.
	isListed bool
	// isMissing is true while the cluster has no TLSContexts.
	isMissing bool
	// found are the TLSContexts by name and namespace.
	found map[string]map[string]foundContext
	// wide are the IDs of the edges that see the objects of all namespaces, by
	// namespace, for every namespace that was reconciled.
	wide map[string][]string
	// waiting are the namespaces to requeue when something changes: those that request
	// a TLSContext and have none.
	waiting map[string]bool
}

func newContextIndex(client dynamic.Interface, names []string, requeue chan<- event.GenericEvent) *contextIndex {
	return &contextIndex{
		client: client, names: names, requeue: requeue,
		found: map[string]map[string]foundContext{}, wide: map[string][]string{}, waiting: map[string]bool{},
	}
}

// Start implements manager.Runnable: it follows the TLSContexts of all namespaces until
// ctx ends.
func (x *contextIndex) Start(ctx context.Context) error {
	api := x.client.Resource(tlsContexts)
	informer := cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := api.List(ctx, o)
			x.noteKind(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := api.Watch(ctx, o)
			x.noteKind(ctx, err)
			return w, err
		},
	}, &unstructured.Unstructured{}, 0, nil)
	_ = informer.SetTransform(x.strip) // an error means that the informer runs already
	_ = informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		if isMissingKind(err) {
			x.list(ctx)
			return
		}
		log.FromContext(ctx).V(1).Info("follow the TLSContexts", "why", err.Error())
	})
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { x.observe(ctx, o) },
		UpdateFunc: func(_, o any) { x.observe(ctx, o) },
		DeleteFunc: func(o any) { x.forget(ctx, o) },
	})
	if err != nil {
		return fmt.Errorf("follow the TLSContexts: %w", err)
	}
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			x.list(ctx)
		}
	}()
	informer.RunWithContext(ctx)
	return nil
}

// strip reduces a TLSContext to what the index and the comparison with the desired
// content need.
func (x *contextIndex) strip(in any) (any, error) {
	o, ok := in.(*unstructured.Unstructured)
	if !ok {
		return in, nil // a tombstone
	}
	o.SetManagedFields(nil)
	o.SetAnnotations(nil)
	if !slices.Contains(x.names, o.GetName()) {
		delete(o.Object, "spec")
	}
	return o, nil
}

// isMissingKind reports whether the cluster has no TLSContexts.
func isMissingKind(err error) bool { return apierrors.IsNotFound(err) || meta.IsNoMatchError(err) }

// noteKind notes from the answer to a request whether the cluster has TLSContexts.
func (x *contextIndex) noteKind(ctx context.Context, err error) {
	isMissing := isMissingKind(err)
	if err != nil && !isMissing {
		return
	}
	x.mu.Lock()
	isNew := x.isMissing != isMissing
	x.isMissing = isMissing
	x.mu.Unlock()
	if isNew {
		x.wake(ctx)
	}
}

// list notes that the watch has delivered its list, or that there is nothing to list.
func (x *contextIndex) list(ctx context.Context) {
	x.mu.Lock()
	isNew := !x.isListed
	x.isListed = true
	x.mu.Unlock()
	if isNew {
		x.wake(ctx)
	}
}

// foundContextOf reads a TLSContext.
func foundContextOf(o *unstructured.Unstructured) foundContext {
	c := foundContext{namespace: o.GetNamespace(), name: o.GetName(), isManaged: policy.IsManaged(o)}
	value, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "ambassador_id")
	switch ids := value.(type) {
	case string:
		c.ids = []string{ids}
	case []any:
		for _, id := range ids {
			if text, ok := id.(string); ok {
				c.ids = append(c.ids, text)
			}
		}
	}
	if len(c.ids) == 0 {
		c.ids = []string{defaultID}
	}
	c.ids = sortedSet(c.ids)
	spec, _, _ := unstructured.NestedMap(o.Object, "spec")
	c.content = content{spec: spec, labels: o.GetLabels()}
	return c
}

// observe notes a TLSContext that a watch announced. Its namespace is requeued unless
// the controller wrote exactly that.
func (x *contextIndex) observe(ctx context.Context, in any) {
	o, ok := in.(*unstructured.Unstructured)
	if !ok || !slices.Contains(x.names, o.GetName()) {
		return
	}
	c := foundContextOf(o)
	x.mu.Lock()
	before, isKnown := x.found[c.name][c.namespace]
	x.put(c)
	x.mu.Unlock()
	if isOurs := isKnown && before.isManaged == c.isManaged && c.content.contains(before.content); !isOurs {
		x.wakeWith(ctx, c.namespace)
	}
}

// forget notes that a TLSContext is gone.
func (x *contextIndex) forget(ctx context.Context, in any) {
	if gone, ok := in.(cache.DeletedFinalStateUnknown); ok {
		in = gone.Obj
	}
	o, ok := in.(*unstructured.Unstructured)
	if !ok || !slices.Contains(x.names, o.GetName()) {
		return
	}
	x.mu.Lock()
	delete(x.found[o.GetName()], o.GetNamespace())
	x.mu.Unlock()
	x.wakeWith(ctx, o.GetNamespace())
}

// wakeWith requeues the namespaces that wait, and this one if it was reconciled.
func (x *contextIndex) wakeWith(ctx context.Context, namespace string) {
	x.mu.Lock()
	_, isReconciled := x.wide[namespace]
	x.mu.Unlock()
	if isReconciled {
		x.wake(ctx, namespace)
		return
	}
	x.wake(ctx)
}

// wake requeues the namespaces that wait, and the given ones.
func (x *contextIndex) wake(ctx context.Context, namespaces ...string) {
	x.mu.Lock()
	namespaces = slices.AppendSeq(namespaces, maps.Keys(x.waiting))
	clear(x.waiting)
	x.mu.Unlock()
	for _, namespace := range namespaces {
		if !enqueue(ctx, x.requeue, namespace) {
			return
		}
	}
}

// put notes a TLSContext. The caller holds the mutex.
func (x *contextIndex) put(c foundContext) {
	if x.found[c.name] == nil {
		x.found[c.name] = map[string]foundContext{}
	}
	x.found[c.name][c.namespace] = c
}

// remove notes that there is no TLSContext of that name in a namespace.
func (x *contextIndex) remove(namespace, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.found[name], namespace)
}

// get returns a TLSContext.
func (x *contextIndex) get(namespace, name string) (c foundContext, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	c, ok = x.found[name][namespace]
	return c, ok
}

// setWide notes the edges of a namespace that was reconciled.
func (x *contextIndex) setWide(namespace string, d contextDesire) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wide[namespace] = append([]string{}, d.wide...)
}

// forgetNamespace forgets the edges of a namespace.
func (x *contextIndex) forgetNamespace(namespace string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.wide, namespace)
	delete(x.waiting, namespace)
}

// wait requeues a namespace when something changes.
func (x *contextIndex) wait(namespace string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.waiting[namespace] = true
}

// state reports whether the TLSContexts of the cluster are known, and whether the
// cluster has that kind.
func (x *contextIndex) state() (isKnown, isMissing bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.isListed, x.isMissing
}

// decide decides on a TLSContext, and notes one that is to be applied, so that two
// namespaces do not both find that there is none.
func (x *contextIndex) decide(o contextObservation, wanted content) (contextObservation, contextDecision) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.found[o.name] {
		if c.namespace == o.namespace {
			o.current = &c
			continue
		}
		o.others = append(o.others, otherContext{foundContext: c, wide: x.wide[c.namespace]})
	}
	slices.SortFunc(o.others, func(a, b otherContext) int { return cmp.Compare(a.namespace, b.namespace) })
	d := decideContext(o)
	if d.action == contextApply {
		x.put(foundContext{namespace: o.namespace, name: o.name, ids: o.desire.ids, isManaged: true, content: wanted})
	}
	return o, d
}
