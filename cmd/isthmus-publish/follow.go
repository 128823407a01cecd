package main

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// changeSpread is over how long the replicas of an edge spread their checks of a
	// Secret that somebody has changed, so that the first repairs it and the others find
	// it repaired.
	changeSpread = 400 * time.Millisecond
	// changeBurst is how many changes are checked at once, and changePause the time
	// between two checks after that: somebody may change the Secret again and again.
	changeBurst = 60
	changePause = 10 * time.Second
)

// secretFollower delivers the versions of the Secret that the API server announces.
type secretFollower struct {
	watch   func(ctx context.Context) (watch.Interface, error)
	limiter *rate.Limiter
	retries schedule
	log     *slog.Logger
	// versions receives the newest resourceVersion, and an empty one when the Secret was
	// deleted or the watch began again, which may have missed something.
	versions chan string
}

func newSecretFollower(w func(ctx context.Context) (watch.Interface, error), random func() float64, log *slog.Logger) *secretFollower {
	return &secretFollower{
		watch: w, limiter: rate.NewLimiter(rate.Every(changePause), changeBurst), retries: schedule{random: random}, log: log,
		versions: make(chan string, 1),
	}
}

// run follows the Secret until ctx ends. While it cannot, the check interval remains.
func (f *secretFollower) run(ctx context.Context) {
	isForbidden := false
	for ctx.Err() == nil {
		began := time.Now()
		err := f.follow(ctx)
		if time.Since(began) > maxBackoff {
			f.retries.resetBackoff()
		}
		if apierrors.IsForbidden(err) && !isForbidden {
			isForbidden = true
			f.log.Warn("may not watch the Secret, so changes are found at the check interval", "error", err.Error())
		}
		select {
		case <-ctx.Done():
		case <-time.After(f.retries.backoff()):
		}
	}
}

// follow delivers versions until the watch ends.
func (f *secretFollower) follow(ctx context.Context) error {
	w, err := f.watch(ctx)
	if err != nil {
		return err
	}
	defer w.Stop()
	f.deliver("")
	for {
		var event watch.Event
		select {
		case <-ctx.Done():
			return nil
		case event = <-w.ResultChan():
		}
		secret, ok := event.Object.(*corev1.Secret)
		switch {
		case !ok: // it ended, or an error
			return nil
		case event.Type == watch.Deleted:
			f.deliver("")
		default:
			f.deliver(secret.ResourceVersion)
		}
		if err := f.limiter.Wait(ctx); err != nil {
			return err
		}
	}
}

// deliver replaces a version that was not received yet.
func (f *secretFollower) deliver(version string) {
	select {
	case <-f.versions:
	default:
	}
	f.versions <- version
}
