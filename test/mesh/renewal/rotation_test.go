package renewal

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
)

// A second controller takes over from the leader without a gap.
func TestRenewalsAndAChangeOfLeaderFailNoCall(t *testing.T) {
	leader, err := env.StartController(t.Context(), "--look-interval=1s")
	require.NoError(t, err)
	t.Cleanup(leader.Kill)
	ns := env.CreateNamespace(t, nil, "edge", "reviews")
	id := environment.Identity(t, ns, "edge")
	history := env.WatchSecret(t, ns, id)
	upstream := env.StartUpstream(t, ns, "reviews", id)
	env.CreateEdge(t, ns, "front", "edge")

	start := time.Now()
	calls := env.StartCaller(t, history, upstream)
	t.Logf("Secret and first call after %s", time.Since(start))
	history.AwaitSerials(t, 2, time.Minute)

	second, err := env.StartController(t.Context(), "--look-interval=1s")
	require.NoError(t, err)
	t.Cleanup(second.Kill)
	leader.Stop() // which releases the Lease
	history.AwaitSerials(t, 3, time.Minute)

	n, failures := calls.Calls()
	assert.Empty(t, failures)
	assert.Greater(t, n, 100)
	assert.Empty(t, history.InvalidVersions())
	published, err := second.Metric(t.Context(), "isthmus_publish_total", `result="published"`)
	require.NoError(t, err)
	assert.Positive(t, published)
	t.Logf("%d calls through %d certificates", n, len(history.Serials()))
	for _, s := range []*environment.Server{leader, second} {
		log, err := os.ReadFile(s.Log)
		require.NoError(t, err)
		assert.NotContains(t, string(log), "forbidden", "the chart's rights are enough")
		assert.NotContains(t, string(log), "PRIVATE KEY")
		assert.Contains(t, string(log), `"reason":"Published"`)
	}
}
