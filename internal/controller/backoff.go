package controller

import (
	"math/rand/v2"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// firstRetry and lastRetry are how long a namespace waits after its first
// failure, and at most.
const (
	firstRetry = time.Second
	lastRetry  = 10 * time.Minute
)

// backoff doubles the wait with every failure and spreads it: when istiod comes
// back, thousands of namespaces must not ask it in the same moment.
type backoff struct {
	workqueue.TypedRateLimiter[reconcile.Request]
	// limit is the longest wait of the moment. With few Secrets it is short, for
	// they may have short lives, and waiting costs somebody an outage.
	limit func() time.Duration
}

func newBackoff(limit func() time.Duration) backoff {
	return backoff{workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry), limit}
}

// When is between half of the wait and one and a half of it.
func (b backoff) When(item reconcile.Request) time.Duration {
	return spread(min(b.TypedRateLimiter.When(item), b.limit()), 0.5)
}

// spread moves a duration at random, by a fraction of it to either side.
func spread(d time.Duration, fraction float64) time.Duration {
	return d + time.Duration((2*rand.Float64()-1)*fraction*float64(d)) //nolint:gosec // it spreads load, it hides nothing
}
