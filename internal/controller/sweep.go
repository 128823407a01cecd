package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// rootFollower has every namespace looked at when the mesh's roots change.
type rootFollower struct {
	*reconciler
	again chan<- event.GenericEvent
}

// Start implements manager.Runnable.
func (f *rootFollower) Start(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	f.Roots.OnChange(func() {
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
			if !send(ctx, f.again, namespace) {
				return nil
			}
		}
	}
}

// namespaces lists the namespaces in which something is kept.
func (r *reconciler) namespaces() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.places))
	for name := range r.places {
		names = append(names, name)
	}
	return names
}

// sweeper looks once, when a replica becomes leader, at every namespace that is
// not opted in: one that opted out while nobody watched may still hold what is
// ours. It is in no hurry.
type sweeper struct {
	reader client.Reader
	again  chan<- event.GenericEvent
}

// sweepEvery is the time between two namespaces of a sweep.
const sweepEvery = 100 * time.Millisecond

// Start implements manager.Runnable.
func (s *sweeper) Start(ctx context.Context) error {
	notEnabled, err := labels.NewRequirement(policy.InjectionLabel, selection.NotEquals, []string{policy.InjectionEnabled})
	if err != nil {
		return fmt.Errorf("selector of the sweep: %w", err)
	}
	selector := client.MatchingLabelsSelector{Selector: labels.NewSelector().Add(*notEnabled)}
	pause := time.NewTicker(sweepEvery)
	defer pause.Stop()
	next := ""
	for {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
		err := s.reader.List(ctx, list, selector, client.Limit(page), client.Continue(next))
		if err != nil {
			if !s.rest(ctx, err) {
				return nil
			}
			next = "" // what was left to see may be too old to be asked for
			continue
		}
		for i := range list.Items {
			select {
			case <-ctx.Done():
				return nil
			case <-pause.C:
			}
			if !send(ctx, s.again, list.Items[i].Name) {
				return nil
			}
		}
		if next = list.Continue; next == "" {
			return nil
		}
	}
}

// rest waits after a failure; false when ctx ended meanwhile.
func (s *sweeper) rest(ctx context.Context, err error) bool {
	log.FromContext(ctx).Error(err, "list the namespaces that are not opted in; trying again")
	select {
	case <-ctx.Done():
		return false
	case <-time.After(lastRetry):
		return true
	}
}

// send has a namespace looked at; false when ctx ended before.
func send(ctx context.Context, again chan<- event.GenericEvent, namespace string) bool {
	o := metadata("Namespace")
	o.Name = namespace
	select {
	case <-ctx.Done():
		return false
	case again <- event.GenericEvent{Object: o}:
		return true
	}
}
