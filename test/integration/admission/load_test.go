package admission

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	loadReviews = 10_000
	loadClients = 16
)

// TestNoReviewFailsWhileCertificatesRotateAndReplicasRestart puts two replicas
// behind the door, lets certificates live for seconds, and restarts one replica
// after the other, while 16 clients create pods. What fails would have been a
// pod of a front door.
func TestNoReviewFailsWhileCertificatesRotateAndReplicasRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	s := newSpace(t, enabled)
	brief := []string{"--ca-ttl=20s", "--leaf-ttl=8s", "--propagation-delay=3s", "--shutdown-delay=2s", "--log-level=info"}
	require.NoError(t, world.server.stop(t.Context()))
	// The CA that is there would live for a year.
	require.NoError(t, world.emptyCA(t.Context()))
	var replicas []*replica
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, r := range replicas {
			assert.NoError(t, r.stop(ctx))
		}
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
	load := &load{t: t, space: s, enough: make(chan struct{})}
	began := time.Now()

	load.run(func() {
		// One replica after the other ends and another takes its place.
		for i := 0; running(load.enough); i = 1 - i {
			assert.NoError(t, replicas[i].stop(t.Context()))
			next, err := world.startReplica(t.Context(), brief...)
			if !assert.NoError(t, err) {
				return
			}
			replicas[i] = next
			world.door.lead(slices.Clone(replicas)...)
			load.restarts.Add(1)
		}
	})

	took := time.Since(began)
	t.Logf("%d reviews through the API server and %d over new connections in %s, %.0f/s, at %d in parallel; %d leaf certificates, %d roots, %d restarts",
		load.throughServer.Load(), load.direct.Load(), took.Round(time.Second), float64(load.throughServer.Load()+load.direct.Load())/took.Seconds(),
		loadClients, load.leaves.count(), load.roots.count(), load.restarts.Load())
	assert.GreaterOrEqual(t, load.throughServer.Load(), int64(loadReviews))
	assert.GreaterOrEqual(t, load.roots.count(), 3, "the CA rotated twice")
	assert.Empty(t, load.failures.list(), "failed reviews")
}

// load is what the clients did and saw.
type load struct {
	t                               *testing.T
	space                           *space
	throughServer, direct, restarts atomic.Int64
	leaves, roots, failures         set
	enough                          chan struct{}
}

// run keeps the clients busy until there are enough reviews, the CA has rotated
// twice, and the work that goes on meanwhile is done.
func (l *load) run(meanwhile func()) {
	var clients sync.WaitGroup
	stop := make(chan struct{})
	pod := edgePod("edge")
	for range loadClients - 1 {
		clients.Go(func() {
			for running(stop) {
				got, err := l.space.dryRun(pod)
				if err == nil && !isInjected(got) {
					err = errors.New("the pod came out without a sidecar")
				}
				l.throughServer.Add(1)
				l.failed(err)
			}
		})
	}
	// One client opens a connection for every review, as an API server does
	// that was just started.
	clients.Go(func() {
		for running(stop) {
			status, body, err := world.review(l.t.Context(), "/inject/namespace", podRequest(l.space.name, barePod(`{"name": "edge"}`)), l.handshake)
			if err == nil && (status != http.StatusOK || !bytes.Contains(body, []byte(`"patch"`))) {
				err = fmt.Errorf("HTTP %d: %s", status, body)
			}
			l.direct.Add(1)
			l.failed(err)
		}
	})
	clients.Go(func() {
		defer close(l.enough)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		deadline := time.After(3 * patience)
		for l.throughServer.Load() < loadReviews || l.roots.count() < 3 {
			select {
			case <-deadline:
				return
			case <-tick.C:
				l.watchRoots()
			}
		}
	})
	meanwhile()
	close(stop)
	clients.Wait()
}

func (l *load) handshake(certificate *x509.Certificate) {
	l.leaves.add(certificate.SerialNumber.String())
}

// watchRoots notes the roots that the API server verifies by.
func (l *load) watchRoots() {
	bundle, err := world.caBundle(l.t.Context())
	if err != nil {
		l.failed(err)
		return
	}
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		l.roots.add(string(block.Bytes))
	}
}

func running(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return false
	default:
		return true
	}
}

func (l *load) failed(err error) {
	if err != nil {
		l.failures.add(time.Now().Format("15:04:05.000 ") + err.Error())
	}
}

// set collects different strings.
type set struct {
	mu      sync.Mutex
	strings map[string]struct{}
}

func (s *set) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strings == nil {
		s.strings = map[string]struct{}{}
	}
	s.strings[text] = struct{}{}
}

func (s *set) count() int { return len(s.list()) }

func (s *set) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.strings))
}
