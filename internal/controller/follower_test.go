package controller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

func TestFollowerRequeuesOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var change func()
		requeue := make(chan event.GenericEvent, 10)
		f := &follower{
			onChange: func(f func()) { change = f }, namespaces: func() []string { return []string{"a", "b", "c"} },
			pause: availablePause, requeue: requeue,
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Start(ctx) }()
		synctest.Wait()
		assert.Empty(t, requeue, "nothing has changed yet")
		change()
		change() // more changes at once count once
		change()
		for i, name := range []string{"a", "b", "c", "a", "b", "c"} {
			began := time.Now()
			assert.Equal(t, name, (<-requeue).Object.GetName())
			if i > 0 {
				assert.Equal(t, availablePause, time.Since(began))
			}
		}
		time.Sleep(time.Hour) // of the bubble's clock: nothing is requeued later
		assert.Empty(t, requeue)
		cancel()
		require.NoError(t, <-ended)
	})
}

// A namespace that is requeued because its source is available again sends its request,
// though the wait after the last one has not passed.
func TestAvailableSourceEndsTheWait(t *testing.T) {
	e := newEdges(t)
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
	e.source.err = certs.ErrPending
	e.reconcile()
	e.reconcile()
	require.Equal(t, 1, e.source.asked, "the wait has not passed")
	assert.Equal(t, []string{"edge"}, e.wakeNamespaces())
	e.reconcile()
	assert.Equal(t, 2, e.source.asked)
	e.reconcile()
	assert.Equal(t, 2, e.source.asked, "once")
	assert.Equal(t, []string{"edge"}, e.wakeNamespaces())
	e.source.err = nil
	e.reconcile()
	assert.NotNil(t, e.store.secret)
	assert.Empty(t, e.wakeNamespaces())
}

func TestNamespacesThatWaitForASource(t *testing.T) {
	ca := newAuthority(t)
	c := newChecker(t, ca)
	c.source.err = errors.New("connection refused")
	_, err := c.check(t)
	require.Error(t, err)
	assert.Equal(t, []string{"edge"}, c.wakeNamespaces())
	c.source.bundle, c.source.err = ca.bundle(t, "emissary", noon, noon.Add(24*time.Hour)), nil
	_, err = c.check(t)
	require.NoError(t, err)
	assert.Empty(t, c.wakeNamespaces())

	c.source.err = errors.New("connection refused")
	c.store.secret = nil
	_, err = c.check(t)
	require.Error(t, err)
	c.namespaces["edge"] = c.state
	c.forgetNamespace("edge")
	assert.Empty(t, c.wakeNamespaces())
}
