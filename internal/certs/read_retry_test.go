package certs

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestReadRetryBacksOffUntilItsTimeout(t *testing.T) {
	const ms = time.Millisecond
	start := time.Unix(0, 0)
	r := readRetry{timeout: 30 * ms}
	for i, step := range []struct {
		digest  string
		at      time.Duration
		backoff time.Duration // zero after the timeout
	}{
		{"a", 0, 5 * ms},
		{"a", 5 * ms, 10 * ms},
		{"b", 15 * ms, 15 * ms}, // what is left of the timeout; other content gets no more
		{"b", 30 * ms, 0},
		{"b", 31 * ms, 0}, // a poll
		{"b", 1000 * ms, 0},
		{"c", 1001 * ms, 5 * ms},
		{"b", 1006 * ms, 10 * ms},
		{"c", 5000 * ms, 0}, // a late read
	} {
		backoff, ok := r.next(step.digest, start.Add(step.at))
		assert.Equal(t, step.backoff, backoff, "step %d", i)
		assert.Equal(t, step.backoff > 0, ok, "step %d", i)
	}
	r.reset()
	backoff, ok := r.next("c", start.Add(time.Hour))
	assert.True(t, ok, "after a valid read the timeout starts again")
	assert.Equal(t, 5*ms, backoff)
}
