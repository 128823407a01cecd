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

// watchTimeout ends a watch from the server's side, so that one on a dead
// connection is not waited for forever.
const watchTimeout = 5 * time.Minute

// alarm watches one object and calls wake whenever it may have changed. What it is
// now is then read by name: this needs no list permission, keeps no cache, and
// cannot miss a deletion.
type alarm struct {
	log  logr.Logger
	name string
	open func(context.Context, metav1.ListOptions) (watch.Interface, error)
	wake func()
}

func (a alarm) run(ctx context.Context) {
	fresh := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: 6, Cap: 30 * time.Second}
	backoff := fresh
	for ctx.Err() == nil {
		started := time.Now()
		if err := a.watch(ctx); err != nil && ctx.Err() == nil {
			a.log.V(1).Info("watch ended, opening it again", "name", a.name, "reason", err.Error())
		}
		if time.Since(started) > time.Minute {
			backoff = fresh
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff.Step()):
		}
	}
}

func (a alarm) watch(ctx context.Context) error {
	timeout := int64(wait.Jitter(watchTimeout, 1).Seconds())
	events, err := a.open(ctx, metav1.ListOptions{
		FieldSelector:  fields.OneTermEqualSelector(metav1.ObjectNameField, a.name).String(),
		TimeoutSeconds: &timeout,
	})
	if err != nil {
		return err
	}
	defer events.Stop()

	// Whatever happened while nobody watched.
	a.wake()
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
			a.wake()
		}
	}
}
