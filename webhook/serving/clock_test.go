package serving

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/utils/clock"
)

// offsetClock is a real clock with an offset that can be set; its timers run as usual.
type offsetClock struct {
	clock.RealClock
	offset atomic.Int64
}

func (c *offsetClock) Now() time.Time {
	return time.Now().Round(0).Add(time.Duration(c.offset.Load()))
}

func TestLeafIsSignedAgainWhenTheClockWasSetBack(t *testing.T) {
	c := newCluster(t)
	startRotator(t, c.options())
	o, ahead := c.options(), &offsetClock{}
	ahead.offset.Store(int64(2 * time.Hour))
	o.Clock = ahead
	s := startSource(t, o)
	requireReady(t, s)
	assert.True(t, s.leaf.Load().Leaf.NotBefore.After(time.Now()), "the leaf is not valid yet")

	ahead.offset.Store(0)
	assert.ErrorContains(t, s.Ready(), "because the clock was ahead when it was signed: a new one is being signed")
	s.requeue() // as within resyncInterval
	require.Eventually(t, func() bool { return s.Ready() == nil }, 20*time.Second, 5*time.Millisecond)
	assert.True(t, s.leaf.Load().Leaf.NotBefore.Before(time.Now()))
}
