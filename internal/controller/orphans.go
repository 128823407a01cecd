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

// orphanCollector requeues every namespace that is not opted in once, when a replica
// becomes the leader: a namespace that opted out while no leader ran may still hold
// objects that Isthmus manages.
type orphanCollector struct {
	reader  client.Reader
	requeue chan<- event.GenericEvent
}

// orphanInterval is the time between two namespaces, so that thousands of them do
// not delay the reconciliation of opted-in namespaces.
const orphanInterval = 100 * time.Millisecond

// Start implements manager.Runnable.
func (c *orphanCollector) Start(ctx context.Context) error {
	notEnabled, err := labels.NewRequirement(policy.InjectionLabel, selection.NotEquals, []string{policy.InjectionEnabled})
	if err != nil {
		return fmt.Errorf("selector of namespaces that are not opted in: %w", err)
	}
	selector := client.MatchingLabelsSelector{Selector: labels.NewSelector().Add(*notEnabled)}
	pause := time.NewTicker(orphanInterval)
	defer pause.Stop()
	next := ""
	for {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
		err := c.reader.List(ctx, list, selector, client.Limit(pageSize), client.Continue(next))
		if err != nil {
			if !waitAfter(ctx, err) {
				return nil
			}
			next = "" // the continue token may have expired
			continue
		}
		for i := range list.Items {
			select {
			case <-ctx.Done():
				return nil
			case <-pause.C:
			}
			if !enqueue(ctx, c.requeue, list.Items[i].Name) {
				return nil
			}
		}
		if next = list.Continue; next == "" {
			return nil
		}
	}
}

// waitAfter waits after a failure; false when ctx ended meanwhile.
func waitAfter(ctx context.Context, err error) bool {
	log.FromContext(ctx).Error(err, "list the namespaces that are not opted in; retrying")
	select {
	case <-ctx.Done():
		return false
	case <-time.After(lastRetry):
		return true
	}
}
