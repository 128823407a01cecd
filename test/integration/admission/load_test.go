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
	// loadReviews is the minimum number of reviews, and loadPods that of the pods among
	// them, which are created through the API server.
	loadReviews = 10_000
	loadPods    = 1_000
	// loadClients is the number of parallel clients. Half of them create pods; the others
	// send reviews as API servers do, which takes less CPU.
	loadClients = 16
	// loadRoots is the minimum number of successive CAs.
	loadRoots = 3
)

// testNoReviewFails runs two replicas with certificates that live for seconds, and restarts
// one replica after the other, while clients request reviews. None may fail.
func testNoReviewFails(t *testing.T) {
	s := newNamespace(t, enabled)
	flags := []string{"--leaf-ttl=8s", "--shutdown-delay=2s", "--log-level=info"}
	require.NoError(t, env.stopServer(t.Context()))
	// The existing CA would live for a year.
	require.NoError(t, env.clearCA(t.Context()))
	controller, err := env.startController(t.Context(), "--ca-ttl=20s", "--propagation-delay=3s")
	require.NoError(t, err)
	var replicas []*replica
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, r := range replicas {
			assert.NoError(t, r.stop(ctx))
		}
		assert.NoError(t, controller.stop(ctx))
		require.NoError(t, env.clearCA(ctx))
		require.NoError(t, env.startServer(ctx))
	})
	for range 2 {
		r, err := env.startReplica(t.Context(), flags...)
		require.NoError(t, err)
		replicas = append(replicas, r)
	}
	env.service.setReplicas(slices.Clone(replicas)...)
	require.NoError(t, env.awaitInjection(t.Context()))
	load := &load{t: t, namespace: s}
	start, restarts := time.Now(), 0

	load.start()
	// After every fifth of the reviews, one replica stops and another replaces it.
	for restarts < 4 && load.await(int64(restarts+1)*loadReviews/5, 0, 0) {
		i := restarts % len(replicas)
		assert.NoError(t, replicas[i].stop(t.Context()))
		next, err := env.startReplica(t.Context(), flags...)
		if !assert.NoError(t, err) {
			break
		}
		replicas[i] = next
		env.service.setReplicas(slices.Clone(replicas)...)
		restarts++
	}
	load.await(loadReviews, loadPods, loadRoots)
	load.stop()

	duration := time.Since(start)
	t.Logf("%d reviews in %s at %d in parallel, %d of them by pods through the API server, %d over new connections; %d leaf certificates seen, %d roots, %d restarts",
		load.reviews.Load(), duration.Round(time.Second), loadClients, load.pods.Load(), load.newConnections.Load(), load.leaves.count(), load.roots.count(), restarts)
	assert.GreaterOrEqual(t, load.reviews.Load(), int64(loadReviews))
	assert.GreaterOrEqual(t, load.pods.Load(), int64(loadPods))
	assert.GreaterOrEqual(t, load.roots.count(), loadRoots)
	assert.Equal(t, 4, restarts)
	assert.Empty(t, load.failures.list(), "failed reviews")
}
