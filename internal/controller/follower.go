package controller

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/event"
)

// availablePause is the time between two namespaces that are requeued because their
// source is available again: thousands of them must not send their requests at the
// same time.
const availablePause = 50 * time.Millisecond

// follower requeues namespaces whenever something changes that they depend on.
type follower struct {
	// onChange makes its argument be called at every change.
	onChange func(f func())
	// namespaces lists those to requeue.
	namespaces func() []string
	// pause is the time between two of them.
	pause   time.Duration
	requeue chan<- event.GenericEvent
}

// Start implements manager.Runnable.
func (f *follower) Start(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	f.onChange(func() {
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
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(f.pause):
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
