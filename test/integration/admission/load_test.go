package admission

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	// loadReviews is how many reviews are asked for at least, and loadPods how
	// many of them by pods that are created through the API server.
	loadReviews = 10_000
	loadPods    = 1_000
	// loadClients work in parallel: half of them create pods, the others ask
	// as API servers do, which costs this machine less.
	loadClients = 16
	// loadRoots is how many CAs come after each other at least.
	loadRoots = 3
)

// noReviewFails puts two replicas
// behind the door, lets certificates live for seconds, and restarts one replica
// after the other, while clients ask. A review that failed would have been a pod
// of a front door.
func noReviewFails(t *testing.T) {
	s := newSpace(t, enabled)
	brief := []string{"--leaf-ttl=8s", "--shutdown-delay=2s", "--log-level=info"}
	require.NoError(t, world.stopServer(t.Context()))
	// The CA that is there would live for a year.
	require.NoError(t, world.emptyCA(t.Context()))
	controller, err := world.startController(t.Context(), "--ca-ttl=20s", "--propagation-delay=3s")
	require.NoError(t, err)
	var replicas []*replica
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, r := range replicas {
			assert.NoError(t, r.stop(ctx))
		}
		assert.NoError(t, controller.stop(ctx))
		require.NoError(t, world.emptyCA(ctx))
		require.NoError(t, world.startServer(ctx))
	})
	for range 2 {
		r, err := world.startReplica(t.Context(), brief...)
		require.NoError(t, err)
		replicas = append(replicas, r)
	}
	world.door.lead(slices.Clone(replicas)...)
	require.NoError(t, world.awaitInjection(t.Context()))
	load := &load{t: t, space: s}
	began, restarts := time.Now(), 0

	load.start()
	// At every fifth of the work one replica ends and another takes its place.
	for restarts < 4 && load.reach(int64(restarts+1)*loadReviews/5, 0, 0) {
		i := restarts % len(replicas)
		assert.NoError(t, replicas[i].stop(t.Context()))
		next, err := world.startReplica(t.Context(), brief...)
		if !assert.NoError(t, err) {
			break
		}
		replicas[i] = next
		world.door.lead(slices.Clone(replicas)...)
		restarts++
	}
	load.reach(loadReviews, loadPods, loadRoots)
	load.stop()

	took := time.Since(began)
	t.Logf("%d reviews in %s at %d in parallel, %d of them by pods through the API server, %d over new connections; %d leaf certificates seen, %d roots, %d restarts",
		load.reviews.Load(), took.Round(time.Second), loadClients, load.pods.Load(), load.fresh.Load(), load.leaves.count(), load.roots.count(), restarts)
	assert.GreaterOrEqual(t, load.reviews.Load(), int64(loadReviews))
	assert.GreaterOrEqual(t, load.pods.Load(), int64(loadPods))
	assert.GreaterOrEqual(t, load.roots.count(), loadRoots)
	assert.Equal(t, 4, restarts)
	assert.Empty(t, load.failures.list(), "failed reviews")
}
