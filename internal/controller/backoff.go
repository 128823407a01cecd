package controller

import (
	"math/rand/v2"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// How long a namespace waits after a failure: at first, and at most.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// backoff doubles the wait with every failure and spreads it: when istiod comes
// back, thousands of namespaces must not ask it in the same moment.
type backoff struct {
	workqueue.TypedRateLimiter[reconcile.Request]
}

func newBackoff() backoff {
	return backoff{workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry)}
}

// When is between half of the wait and one and a half of it.
func (b backoff) When(item reconcile.Request) time.Duration {
	return spread(b.TypedRateLimiter.When(item), 0.5)
}

// spread moves a duration at random, by a fraction of it to either side.
func spread(d time.Duration, fraction float64) time.Duration {
	return d + time.Duration((2*rand.Float64()-1)*fraction*float64(d)) //nolint:gosec // it spreads load, it hides nothing
}
