//go:build soak

package rotations

import (
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// slack is how much later than the publisher this test may hear of a rename.
const slack = time.Second

// rotations is how many each trial goes through: $ISTHMUS_ROTATIONS, else ten.
var rotations = 10

// controller starts the controller until the test ends.
func controller(t *testing.T, flags ...string) *environment.Server {
	t.Helper()
	c, err := world.StartController(t.Context(), append([]string{"--look-interval=2s", "--leader-elect=false"}, flags...)...)
	require.NoError(t, err)
	t.Cleanup(c.Kill)
	return c
}

// These trials share a controller, istiod and the minutes.
func TestBesideOneController(t *testing.T) {
	controller(t)
	t.Run("trials", func(t *testing.T) {
		for name, trial := range map[string]func(*testing.T){
			"renewals of the controller": renewals,
			"rotations of the agent":     agentRotations,
			"wrong directory":            wrongDirectory,
			"disk full":                  diskFull,
			"mirror":                     mirror,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				trial(t)
			})
		}
	})
}

// The controller alone.
func renewals(t *testing.T) {
	ns := world.CreateNamespace(t, nil, "edge", "reviews")
	id := environment.Identity(t, ns, "edge")
	ledger := world.WatchSecret(t, ns, id)
	upstream := world.StartUpstream(t, ns, "reviews", id)
	world.CreateEdge(t, ns, "front", "edge")
	calls := world.StartCaller(t, ledger, upstream)
	ledger.AwaitSerials(t, rotations+1, 8*time.Minute)
	flawless(t, ledger, calls)
	assert.Empty(t, ledger.UnneededWrites(), "one write per renewal")
}

// The real agent writes a directory, three publishers of three replicas write one
// Secret.
func agentRotations(t *testing.T) {
	ns := world.CreateNamespace(t, map[string]string{policy.SourceKey: "agent"}, "edge", "reviews")
	id := environment.Identity(t, ns, "edge")
	ledger := world.WatchSecret(t, ns, id)
	upstream := world.StartUpstream(t, ns, "reviews", id)
	world.CreateEdge(t, ns, "front", "edge") // the controller binds the rights
	agent, err := istio.StartAgent(t.Context(), world.Istiod, istio.AgentOptions{Namespace: ns, ServiceAccount: "edge", TTL: time.Minute})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, agent.Stop()) })
	renames := renamesIn(t, agent.Dir)
	roots := world.RootsFile(t)
	for range 3 {
		publisher, err := world.StartPublisher(t.Context(), ns, "edge", agent.Dir, roots, "")
		require.NoError(t, err)
		t.Cleanup(publisher.Kill)
	}
	calls := world.StartCaller(t, ledger, upstream)
	ledger.AwaitSerials(t, rotations+1, 10*time.Minute)
	flawless(t, ledger, calls)
	assert.Empty(t, ledger.UnneededWrites(), "one write per rotation, with three publishers")

	var worst time.Duration
	for i, e := range ledger.Versions()[1:] {
		took := max(e.Seen.Sub(renames.last(e.Seen.Add(slack))), 0)
		t.Logf("rotation %d: in the Secret %s after the last rename", i+1, took)
		worst = max(worst, took)
	}
	t.Logf("slowest of %d rotations: %s from the last rename to the Secret (bar 250ms)", rotations, worst)
	assert.Less(t, worst, 10*time.Second, "no rotation was missed")
}

// flawless judges a trial.
func flawless(t *testing.T, ledger *environment.SecretHistory, calls *environment.Caller) {
	t.Helper()
	n, failures := calls.Calls()
	assert.Empty(t, failures, "failed calls")
	assert.Empty(t, ledger.InvalidVersions(), "versions of the Secret that are no bundle")
	t.Logf("%d calls through %d certificates, %d failed; %d versions, %d wrong", n, len(ledger.Serials()), len(failures), len(ledger.Versions()), len(ledger.InvalidVersions()))
}

// moments are when files were renamed in a directory.
type moments struct {
	times chan time.Time
	seen  []time.Time
}

func renamesIn(t *testing.T, dir string) *moments {
	t.Helper()
	watcher, err := fsnotify.NewWatcher()
	require.NoError(t, err)
	t.Cleanup(func() { _ = watcher.Close() })
	require.NoError(t, watcher.Add(dir))
	m := &moments{times: make(chan time.Time, 10000)}
	go func() {
		for e := range watcher.Events {
			if e.Has(fsnotify.Create) {
				m.times <- time.Now()
			}
		}
	}()
	return m
}

// last is the newest rename before a moment.
func (m *moments) last(before time.Time) time.Time {
	for len(m.times) > 0 {
		m.seen = append(m.seen, <-m.times)
	}
	var last time.Time
	for _, at := range m.seen {
		if at.Before(before) {
			last = at
		}
	}
	return last
}
