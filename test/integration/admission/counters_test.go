package admission

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// paths of the two webhooks, as the metric labels them.
const (
	namespacePath = `webhook="/inject/namespace"`
	podPath       = `webhook="/inject/pod"`
	requestsTotal = "controller_runtime_webhook_requests_total"
	admissions    = "isthmus_admission_total"
)

// counters remembers counters of the server, to say by how much they grew.
type counters struct {
	t      *testing.T
	before map[string]float64
}

// count begins to count the samples of these metrics.
func count(t *testing.T) *counters {
	t.Helper()
	c := &counters{t: t, before: map[string]float64{}}
	for name, read := range watched {
		value, err := world.server.counter(t.Context(), read[0], read[1:]...)
		require.NoError(t, err)
		c.before[name] = value
	}
	return c
}

// watched are the counters that tests ask for: metric and labels.
var watched = map[string][]string{
	"namespace":        {requestsTotal, namespacePath},
	"pod":              {requestsTotal, podPath},
	"injected":         {admissions, `reason="injected"`},
	"already-injected": {admissions, `reason="already-injected"`},
	"opted-out":        {admissions, `reason="opted-out"`},
	"no-profile":       {admissions, `reason="no-profile"`},
	"internal-error":   {admissions, `reason="internal-error"`},
	"decided":          {admissions},
	"workload":         {requestsTotal, `webhook="/validate/workload"`},
	"own keys":         {requestsTotal, `webhook="/validate/namespace"`},
}

// grew awaits that a counter grew by this much, and checks that it did not grow
// by more: a counter is written a moment after the answer.
func (c *counters) grew(want map[string]float64) {
	c.t.Helper()
	got := map[string]float64{}
	err := await(c.t.Context(), func(ctx context.Context) error {
		enough := true
		for name, grown := range want {
			value, err := world.server.counter(ctx, watched[name][0], watched[name][1:]...)
			if err != nil {
				return err
			}
			got[name] = value - c.before[name]
			enough = enough && got[name] >= grown
		}
		if !enough {
			return fmt.Errorf("counters grew by %v", got)
		}
		return nil
	})
	require.NoError(c.t, err)
	assert.Equal(c.t, want, got)
}
