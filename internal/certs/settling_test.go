package certs

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestSettling(t *testing.T) {
	const ms = time.Millisecond
	start := time.Unix(0, 0)
	s := settling{patience: 30 * ms}
	for i, step := range []struct {
		digest string
		at     time.Duration
		wait   time.Duration // zero when patience is over
	}{
		{"a", 0, 5 * ms},
		{"a", 5 * ms, 10 * ms},
		{"b", 15 * ms, 15 * ms}, // what is left; another content gets no more
		{"b", 30 * ms, 0},
		{"b", 31 * ms, 0}, // a poll
		{"b", 1000 * ms, 0},
		{"c", 1001 * ms, 5 * ms},
		{"b", 1006 * ms, 10 * ms},
		{"c", 5000 * ms, 0}, // a reading that came late
	} {
		wait, ok := s.next(step.digest, start.Add(step.at))
		assert.Equal(t, step.wait, wait, "step %d", i)
		assert.Equal(t, step.wait > 0, ok, "step %d", i)
	}
	s.end()
	wait, ok := s.next("c", start.Add(time.Hour))
	assert.True(t, ok, "what was good in between has its patience again")
	assert.Equal(t, 5*ms, wait)
}
