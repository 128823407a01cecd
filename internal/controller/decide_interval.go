package controller

import "time"

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
)

// retryAfter is the wait after a failure. failures is the number of failures before
// it. The wait doubles with every failure, up to limit and lastRetry, with half of
// it as jitter: when istiod comes back, thousands of namespaces must not send their
// requests at the same time.
func retryAfter(failures int, limit time.Duration, random func() float64) time.Duration {
	delay := lastRetry
	if failures < 10 { // 2^10 seconds are more than lastRetry
		delay = min(firstRetry<<failures, lastRetry)
	}
	return jitter(min(delay, limit), 0.5, random)
}

// stretchInterval is the time between two checks of a Secret, for the given number
// of Secrets: never less than interval, and at most ten checks a second in total.
func stretchInterval(interval time.Duration, secrets int) time.Duration {
	return max(interval, time.Duration(secrets)*time.Second/10)
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
