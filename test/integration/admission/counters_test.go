package admission

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Labels of the two webhooks in the metric, and names of metrics.
const (
	namespaceLabel = `webhook="/inject/namespace"`
	podLabel       = `webhook="/inject/pod"`
	requestsTotal  = "controller_runtime_webhook_requests_total"
	admissionTotal = "isthmus_admission_total"
)

// counters are values of the server's counters, from which to measure their growth.
type counters struct {
	t      *testing.T
	before map[string]float64
}

// snapshotCounters reads the counters.
func snapshotCounters(t *testing.T) *counters {
	t.Helper()
	c := &counters{t: t, before: map[string]float64{}}
	for name, read := range counterQueries {
		value, err := env.server.counter(t.Context(), read[0], read[1:]...)
		require.NoError(t, err)
		c.before[name] = value
	}
	return c
}

// counterQueries are the counters that tests use: metric and labels.
var counterQueries = map[string][]string{
	"namespace":        {requestsTotal, namespaceLabel},
	"pod":              {requestsTotal, podLabel},
	"injected":         {admissionTotal, `reason="injected"`},
	"already-injected": {admissionTotal, `reason="already-injected"`},
	"opted-out":        {admissionTotal, `reason="opted-out"`},
	"no-profile":       {admissionTotal, `reason="no-profile"`},
	"internal-error":   {admissionTotal, `reason="internal-error"`},
	"decided":          {admissionTotal},
	"workload":         {requestsTotal, `webhook="/validate/workload"`},
	"own keys":         {requestsTotal, `webhook="/validate/namespace"`},
}

// assertGrowth waits until the counters have grown by this much, and checks that they have
// not grown by more: a counter is updated a moment after the answer.
func (c *counters) assertGrowth(want map[string]float64) {
	c.t.Helper()
	got := map[string]float64{}
	err := await(c.t.Context(), func(ctx context.Context) error {
		reached := true
		for name, increase := range want {
			value, err := env.server.counter(ctx, counterQueries[name][0], counterQueries[name][1:]...)
			if err != nil {
				return err
			}
			got[name] = value - c.before[name]
			reached = reached && got[name] >= increase
		}
		if !reached {
			return fmt.Errorf("counters grew by %v", got)
		}
		return nil
	})
	require.NoError(c.t, err)
	assert.Equal(c.t, want, got)
}
