package main

import "time"

const (
	// minBackoff is the delay after the first failure. It doubles up to maxBackoff.
	minBackoff = 500 * time.Millisecond
	maxBackoff = 10 * time.Second
	// maxSpread is over how long replicas with the same renewal point spread their
	// checks. Short-lived certificates have less time.
	maxSpread = 10 * time.Second
	// minDelay keeps a renewal point in the past from causing a busy loop.
	minDelay = time.Second
)

// schedule says when to publish next. It reads no clock.
type schedule struct {
	// checkInterval is the time between two checks of the Secret when nothing
	// happens.
	checkInterval time.Duration
	// random returns a number from 0 to 1.
	random func() float64

	failures int
}

// delay returns the delay before the next check, which is due at nextCheck or, when
// that is zero, at the check interval. It spreads the checks of replicas, which all
// have the same renewal point.
func (s *schedule) delay(nextCheck, now time.Time) time.Duration {
	regular := s.regularDelay()
	if nextCheck.IsZero() {
		return regular
	}
	due := max(nextCheck.Sub(now), minDelay)
	due += time.Duration(s.random() * float64(min(maxSpread, due/10)))
	return min(regular, due)
}

// regularDelay is the check interval, a fifth more or less.
func (s *schedule) regularDelay() time.Duration {
	return s.checkInterval*4/5 + time.Duration(s.random()*float64(s.checkInterval)*2/5)
}

// afterChange returns the delay after somebody else has changed the Secret.
func (s *schedule) afterChange() time.Duration {
	return time.Duration(s.random() * float64(changeSpread))
}

// backoff returns the delay after a failure. It doubles from minBackoff to maxBackoff,
// with a jitter of half.
func (s *schedule) backoff() time.Duration {
	backoff := min(minBackoff<<min(s.failures, 16), maxBackoff)
	s.failures++
	return backoff/2 + time.Duration(s.random()*float64(backoff/2))
}

func (s *schedule) resetBackoff() { s.failures = 0 }
