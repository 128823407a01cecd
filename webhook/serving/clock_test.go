package serving

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/utils/clock"
)

// wrongClock is a real clock that somebody sets; its timers go on as they are.
type wrongClock struct {
	clock.RealClock
	by atomic.Int64
}

func (c *wrongClock) Now() time.Time { return time.Now().Round(0).Add(time.Duration(c.by.Load())) }

func TestLeafOfAClockThatWasAhead(t *testing.T) {
	c := newCluster(t)
	keep(t, c.options())
	o, wrong := c.options(), &wrongClock{}
	wrong.by.Store(int64(2 * time.Hour))
	o.Clock = wrong
	s := run(t, o)
	requireReady(t, s)
	assert.True(t, s.leaf.Load().Leaf.NotBefore.After(time.Now()), "what it signed is of no use yet")

	wrong.by.Store(0)
	assert.ErrorContains(t, s.Ready(), "because the clock was ahead when it was signed: a new one is being signed")
	s.wake() // as within lookAgain
	require.Eventually(t, func() bool { return s.Ready() == nil }, 20*time.Second, 5*time.Millisecond)
	assert.True(t, s.leaf.Load().Leaf.NotBefore.Before(time.Now()))
}
