package controller

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/event"
)

// rootsFollower requeues every known namespace when the mesh's roots change.
type rootsFollower struct {
	roots      Roots
	namespaces func() []string
	requeue    chan<- event.GenericEvent
}

// Start implements manager.Runnable.
func (f *rootsFollower) Start(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	f.roots.OnChange(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		for _, namespace := range f.namespaces() {
			if !enqueue(ctx, f.requeue, namespace) {
				return nil
			}
		}
	}
}

// enqueue requeues a namespace. It returns false when ctx ended before.
func enqueue(ctx context.Context, requeue chan<- event.GenericEvent, namespace string) bool {
	o := metadataOf("Namespace")
	o.Name = namespace
	select {
	case <-ctx.Done():
		return false
	case requeue <- event.GenericEvent{Object: o}:
		return true
	}
}
