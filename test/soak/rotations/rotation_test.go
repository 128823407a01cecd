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

// slack is how much later than the publisher this test may observe a rename.
const slack = time.Second

// rotations is the number of rotations of each test: $ISTHMUS_ROTATIONS, or ten.
var rotations = 10

// controller starts the controller until the test ends.
func controller(t *testing.T, flags ...string) *environment.Server {
	t.Helper()
	c, err := env.StartController(t.Context(), append([]string{"--look-interval=2s", "--leader-elect=false"}, flags...)...)
	require.NoError(t, err)
	t.Cleanup(c.Kill)
	return c
}

// The subtests share a controller and istiod, and run in parallel to save minutes.
func TestRotationsWithOneController(t *testing.T) {
	controller(t)
	t.Run("parallel", func(t *testing.T) {
		for name, run := range map[string]func(*testing.T){
			"renewals of the controller": controllerRenewals,
			"rotations of the agent":     agentRotations,
			"wrong directory":            wrongCertificateDirectory,
			"disk full":                  certificateVolumeFull,
			"mirror":                     mirroredSecret,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t)
			})
		}
	})
}

// The controller renews the Secret.
func controllerRenewals(t *testing.T) {
	ns := env.CreateNamespace(t, nil, "edge", "reviews")
	id := environment.Identity(t, ns, "edge")
	history := env.WatchSecret(t, ns, id)
	upstream := env.StartUpstream(t, ns, "reviews", id)
	env.CreateEdge(t, ns, "front", "edge")
	calls := env.StartCaller(t, history, upstream)
	history.AwaitSerials(t, rotations+1, 8*time.Minute)
	assertNothingFailed(t, history, calls)
	assert.Empty(t, history.UnneededWrites(), "one write per renewal")
}

// The real agent writes a directory, and three publishers, as of three replicas, write one
// Secret.
func agentRotations(t *testing.T) {
	ns := env.CreateNamespace(t, map[string]string{policy.SourceKey: "agent"}, "edge", "reviews")
	id := environment.Identity(t, ns, "edge")
	history := env.WatchSecret(t, ns, id)
	upstream := env.StartUpstream(t, ns, "reviews", id)
	env.CreateEdge(t, ns, "front", "edge") // the controller creates the RoleBinding
	agent, err := istio.StartAgent(t.Context(), env.Istiod, istio.AgentOptions{Namespace: ns, ServiceAccount: "edge", TTL: time.Minute})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, agent.Stop()) })
	renames := watchRenames(t, agent.Dir)
	roots := env.RootsFile(t)
	for range 3 {
		publisher, err := env.StartPublisher(t.Context(), ns, "edge", agent.Dir, roots, "")
		require.NoError(t, err)
		t.Cleanup(publisher.Kill)
	}
	calls := env.StartCaller(t, history, upstream)
	history.AwaitSerials(t, rotations+1, 10*time.Minute)
	assertNothingFailed(t, history, calls)
	assert.Empty(t, history.UnneededWrites(), "one write per rotation, with three publishers")

	var worst time.Duration
	for i, e := range history.Versions()[1:] {
		took := max(e.Seen.Sub(renames.lastBefore(e.Seen.Add(slack))), 0)
		t.Logf("rotation %d: in the Secret %s after the last rename", i+1, took)
		worst = max(worst, took)
	}
	t.Logf("slowest of %d rotations: %s from the last rename to the Secret (bar 250ms)", rotations, worst)
	assert.Less(t, worst, 10*time.Second, "no rotation was missed")
}

// assertNothingFailed checks the calls and the versions of the Secret.
func assertNothingFailed(t *testing.T, history *environment.SecretHistory, calls *environment.Caller) {
	t.Helper()
	n, failures := calls.Calls()
	assert.Empty(t, failures, "failed calls")
	assert.Empty(t, history.InvalidVersions(), "invalid versions of the Secret")
	t.Logf("%d calls through %d certificates, %d failed; %d versions, %d wrong", n, len(history.Serials()), len(failures), len(history.Versions()), len(history.InvalidVersions()))
}

// renameTimes are the times at which files were renamed in a directory.
type renameTimes struct {
	times chan time.Time
	seen  []time.Time
}

func watchRenames(t *testing.T, dir string) *renameTimes {
	t.Helper()
	watcher, err := fsnotify.NewWatcher()
	require.NoError(t, err)
	t.Cleanup(func() { _ = watcher.Close() })
	require.NoError(t, watcher.Add(dir))
	r := &renameTimes{times: make(chan time.Time, 10000)}
	go func() {
		for e := range watcher.Events {
			if e.Has(fsnotify.Create) {
				r.times <- time.Now()
			}
		}
	}()
	return r
}

// lastBefore returns the latest rename before a moment.
func (r *renameTimes) lastBefore(before time.Time) time.Time {
	for len(r.times) > 0 {
		r.seen = append(r.seen, <-r.times)
	}
	var last time.Time
	for _, at := range r.seen {
		if at.Before(before) {
			last = at
		}
	}
	return last
}
