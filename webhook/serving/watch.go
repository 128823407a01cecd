package serving

import (
	"context"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
)

// watchTimeout is when the server ends a watch, at the latest after twice that. It
// bounds how long a watch on a dead connection goes unnoticed.
const watchTimeout = 5 * time.Minute

type watchFunc func(context.Context, metav1.ListOptions) (watch.Interface, error)

// objectWatch watches one object and calls requeue whenever it may have changed. The
// reconciler then reads the object by name: that needs no list permission, keeps no
// cache, and cannot miss a deletion.
type objectWatch struct {
	log     logr.Logger
	name    string
	watch   watchFunc
	requeue func()
}

// run opens the watch again whenever it ends, until ctx ends.
func (w objectWatch) run(ctx context.Context) {
	initial := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: 6, Cap: 30 * time.Second}
	backoff := initial
	for ctx.Err() == nil {
		started := time.Now()
		if err := w.runOnce(ctx); err != nil && ctx.Err() == nil {
			w.log.V(1).Info("watch ended, opening it again", "name", w.name, "reason", err.Error())
		}
		if time.Since(started) > time.Minute {
			backoff = initial
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff.Step()):
		}
	}
}

func (w objectWatch) runOnce(ctx context.Context) error {
	timeout := int64(wait.Jitter(watchTimeout, 1).Seconds())
	events, err := w.watch(ctx, metav1.ListOptions{
		FieldSelector:  fields.OneTermEqualSelector(metav1.ObjectNameField, w.name).String(),
		TimeoutSeconds: &timeout,
	})
	if err != nil {
		return err
	}
	defer events.Stop()

	// The object may have changed while no watch was open.
	w.requeue()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-events.ResultChan():
			if !open {
				return nil
			}
			if event.Type == watch.Error {
				return apierrors.FromObject(event.Object)
			}
			w.requeue()
		}
	}
}
