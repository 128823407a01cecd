package certs

import "time"

// readRetry decides whether a directory that holds no valid bundle is read again soon,
// because the files may be in the middle of a change, or whether its content is
// reported.
type readRetry struct {
	timeout time.Duration
	since   time.Time // of the first of these reads; zero after a good one
	backoff time.Duration
	expired bool
	digest  string // of the last content
}

func (r *readRetry) reset() { *r = readRetry{timeout: r.timeout} }

// next returns the backoff before the next read, and false once the timeout is
// over. New content starts another timeout only then: a directory that never stops
// changing has to be reported as well.
func (r *readRetry) next(digest string, now time.Time) (time.Duration, bool) {
	if r.expired && r.digest == digest {
		return 0, false
	}
	if r.since.IsZero() || r.expired {
		*r = readRetry{timeout: r.timeout, since: now, backoff: firstReadBackoff}
	}
	r.digest = digest
	left := r.timeout - now.Sub(r.since)
	if left <= 0 {
		r.expired = true
		return 0, false
	}
	backoff := min(r.backoff, left)
	r.backoff *= 2
	return backoff, true
}
