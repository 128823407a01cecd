package controller

import (
	"time"

	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// jitter changes a duration at random, by a fraction of it to either side. random
// returns numbers from 0 to 1.
func jitter(d time.Duration, fraction float64, random func() float64) time.Duration {
	return d + time.Duration((2*random()-1)*fraction*float64(d))
}

const (
	// firstRetry is the wait of a namespace after its first failure, and lastRetry
	// the longest.
	firstRetry = time.Second
	lastRetry  = 10 * time.Minute
	// shortestRetry is the shortest wait, however near the end of a certificate is.
	shortestRetry = 100 * time.Millisecond
	// firstRemovalRetry and lastRemovalRetry are the same for what a former source left.
	firstRemovalRetry = 30 * time.Second
	lastRemovalRetry  = time.Hour
)

// retryAfter is the wait after a failure. failures is the number of failures before
// it. The wait doubles with every failure, up to limit and lastRetry, with half of
// it as jitter: when istiod comes back, thousands of namespaces must not send their
// requests at the same time. lifeLeft is what is left of the life of the certificate
// that could not be replaced, see withinLife.
func retryAfter(failures int, limit, lifeLeft time.Duration, random func() float64) time.Duration {
	delay := lastRetry
	if failures < 10 { // 2^10 seconds are more than lastRetry
		delay = min(firstRetry<<failures, lastRetry)
	}
	return withinLife(jitter(min(delay, limit), 0.5, random), lifeLeft)
}

// withinLife shortens a wait to a third of what is left of a certificate's life: the
// nearer its end, the more often its renewal is tried. Zero means that there is no
// valid certificate.
func withinLife(wait, lifeLeft time.Duration) time.Duration {
	if lifeLeft <= 0 {
		return wait
	}
	return min(wait, max(lifeLeft/3, min(lifeLeft, shortestRetry)))
}

// pendingWait is the wait after a source has not issued yet. asks is the number of
// requests before. The wait doubles from pendingRetry to maxPendingRetry, and is up to
// a twentieth shorter at random.
func pendingWait(asks int, lifeLeft time.Duration, random func() float64) time.Duration {
	wait := min(pendingRetry<<min(asks, 10), maxPendingRetry)
	return withinLife(wait-time.Duration(random()*float64(wait/20)), lifeLeft)
}

// dueTime is when the certificate of a good Secret is to be replaced: at its renewal
// point, and up to a tenth of the rest later at random. Where the renewal point was
// brought forward it is that time itself, which is spread already. Publishers have
// until two thirds of the life, and the controller acts up to a tenth of their time
// before that.
func dueTime(source policy.Source, o publish.Observation, random func() float64) time.Time {
	end := o.Bundle.NotAfter()
	if source == policy.Agent {
		return o.LatestRenewal.Add(-time.Duration(random() * float64(o.LatestRenewal.Sub(o.RenewAfter)/10)))
	}
	// The annotation has no fractions of a second.
	third := o.LatestRenewal.Add(-end.Sub(o.LatestRenewal)).Add(-time.Second)
	if o.RenewAfter.Before(third) {
		return o.RenewAfter
	}
	return o.RenewAfter.Add(jitter(end.Sub(o.RenewAfter)/20, 1, random))
}

// leavesPerSecond is how many new certificates a change of roots brings in a second at
// most, and minLeafSpread over how long they are spread at least.
const (
	leavesPerSecond = 12
	minLeafSpread   = 10 * time.Minute
)

// spreadLeaves is over how long the new certificates after a change of the mesh's roots
// are spread, for the given number of Secrets.
func spreadLeaves(secrets int) time.Duration {
	return max(minLeafSpread, time.Duration(secrets)*time.Second/leavesPerSecond)
}

// stretchInterval is the time between two reads of each of many objects: never less
// than interval, and at most ten reads a second in total.
func stretchInterval(interval time.Duration, objects int) time.Duration {
	return max(interval, time.Duration(objects)*time.Second/10)
}

// nextCheck is the time of the next check of a Secret while nothing is due. The
// jitter of the first is large: thousands of Secrets that were first seen within a
// minute must not be checked at the same time again.
func nextCheck(isFirst bool, interval time.Duration, now time.Time, random func() float64) time.Time {
	fraction := 0.1
	if isFirst {
		fraction = 0.5
	}
	return now.Add(jitter(interval, fraction, random))
}
