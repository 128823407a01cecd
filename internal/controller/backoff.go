package controller

import (
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// backoff decides how long a namespace waits after a failure, see retryAfter. It
// counts the failures of each namespace by the rate limiter inside.
type backoff struct {
	workqueue.TypedRateLimiter[reconcile.Request]
	// limit is the longest wait at present. With few Secrets it is short: they may
	// have short lives, and a longer wait could be an outage.
	limit func() time.Duration
	// lifeLeft is what is left of the life of a namespace's certificates; zero when it
	// has none.
	lifeLeft func(namespace string) time.Duration
	random   func() float64
}

func newBackoff(limit func() time.Duration, lifeLeft func(namespace string) time.Duration, random func() float64) backoff {
	return backoff{workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry), limit, lifeLeft, random}
}

// When counts a failure and returns the wait after it.
func (b backoff) When(item reconcile.Request) time.Duration {
	failures := b.NumRequeues(item)
	b.TypedRateLimiter.When(item)
	return retryAfter(failures, b.limit(), b.lifeLeft(item.Name), b.random)
}
