// Package scale measures the controller against a real API server and a real
// istiod, with hundreds and then with thousands of edge namespaces: memory,
// requests, and how both grow. `make bench-scale` runs it.
package scale

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

const (
	// memoryBar is the most that the controller may hold, in bytes.
	memoryBar = 150 << 20
	// steady is how long the steady state is watched.
	steady = time.Minute
	// patience is how long each part may take.
	patience = 8 * time.Minute
	// settle is how long a replica is left alone before it is measured: what was
	// written just now comes back as Events, and Go gives memory back.
	settle = 3 * time.Second
)

// sizes are how many edge namespaces there are. ISTHMUS_SCALE=50,500 makes a
// short run, to work on the bench itself.
func sizes(b *testing.B) (few, many int) {
	b.Helper()
	few, many = 500, 5000
	if text := os.Getenv("ISTHMUS_SCALE"); text != "" {
		_, err := fmt.Sscanf(text, "%d,%d", &few, &many)
		require.NoError(b, err, "ISTHMUS_SCALE: want two numbers, as in 50,500")
	}
	return few, many
}

func BenchmarkController(b *testing.B) {
	if runtime.GOOS != "linux" {
		b.Fatal("memory and processor time are read from /proc, which only Linux has")
	}
	ctrllog.SetLogger(logr.Discard())
	few, many := sizes(b)
	begun := time.Now()
	root, next := certtest.NewAuthority(b, certtest.CommonName("root")), certtest.NewAuthority(b, certtest.CommonName("next root"))
	signer := root.Intermediate(b)
	w := set(b, istio.Options{CA: istio.NewCA(signer, root)})
	e := newEdges(b, w)
	if w.Plane.Logs == "" {
		b.Cleanup(func() { e.remove(b) })
	}
	r := &report{}
	b.Cleanup(func() { r.print(os.Stdout, time.Since(begun)) })
	for b.Loop() {
		e.grow(b, few)
		small, _ := fill(b, w, e, r)
		small.Stop()
		e.removeSecrets(b)

		e.grow(b, many)
		leader, counts := fill(b, w, e, r)
		wait, waitCounts := follow(b, w, r)

		storm(b, e, leader, counts, r, func() {
			w.Istiod.Options.CA = istio.NewCA(signer, root, next)
			require.NoError(b, w.Istiod.Restart(b.Context()))
		})
		takeOver(b, e, leader, wait, waitCounts, r)
	}
	r.judge(b)
}

// set prepares the environment.
func set(b *testing.B, o istio.Options) *environment.Environment {
	b.Helper()
	stop := progress(func() string { return "starting etcd, API server and istiod, installing the chart" })
	defer stop()
	w, err := environment.Start(b.Context(), o, "{}")
	require.NoError(b, err)
	endEarly(b, w)
	b.Cleanup(func() {
		if b.Failed() {
			w.Dump(os.Stderr)
		}
		if err := w.Stop(); err != nil {
			b.Error(err)
		}
	})
	return w
}

// endEarly leaves nothing behind when somebody has seen enough.
func endEarly(b *testing.B, w *environment.Environment) {
	b.Helper()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	b.Cleanup(func() {
		signal.Stop(signals)
		close(signals)
	})
	go func() {
		if _, told := <-signals; told {
			_ = w.Stop() // what runs ends with this process
			os.Exit(1)
		}
	}()
}

// replica starts a controller with the chart's own arguments and rights.
func replica(b *testing.B, w *environment.Environment) (*environment.Server, *counter) {
	b.Helper()
	counts := newCounter(b, w)
	s, err := counts.world.StartController(b.Context())
	require.NoError(b, err)
	b.Cleanup(s.Kill)
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	go scrape(ctx, s)
	return s, counts
}

// scrape reads the metrics as often as Prometheus does: with series for
// thousands of Secrets that takes memory too.
func scrape(ctx context.Context, s *environment.Server) {
	for s.Running() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(15 * time.Second):
		}
		_, _ = s.Metric(ctx, "isthmus_publish_total") // it may end meanwhile
	}
}

// fill starts a controller where there is no Secret yet, waits until all are
// there, and watches the steady state.
func fill(b *testing.B, w *environment.Environment, e *edges, r *report) (*environment.Server, *counter) {
	b.Helper()
	begun := time.Now()
	s, counts := replica(b, w)
	what := fmt.Sprintf("%d namespaces: first Secrets", e.n)
	await(b, counts, what, e.n, func() int { _, written := counts.secrets(); return written })
	took := time.Since(begun)
	pause(b, "settling", settle)
	r.add(b, phase{name: what, size: e.n, took: took, requests: counts.requests(), memory: memoryOf(b, s), busy: processor(b, s)})
	e.check(b, 1)

	m := begin(b, s, counts)
	what = fmt.Sprintf("%d namespaces: steady minute", e.n)
	pause(b, what, steady)
	r.add(b, m.end(phase{name: what, size: e.n, still: true}))
	return s, counts
}

// follow starts a second replica, which waits to become leader.
func follow(b *testing.B, w *environment.Environment, r *report) (*environment.Server, *counter) {
	b.Helper()
	s, counts := replica(b, w)
	m := begin(b, s, counts)
	pause(b, "the replica that waits", 10*time.Second)
	r.add(b, m.end(phase{name: "a second replica, waiting", still: true}))
	return s, counts
}

// storm has the mesh's roots change: every Secret follows, its key and leaf as
// they were.
func storm(b *testing.B, e *edges, s *environment.Server, counts *counter, r *report, change func()) {
	b.Helper()
	before, err := s.Metric(b.Context(), "isthmus_publish_total", `result="published"`)
	require.NoError(b, err)
	m := begin(b, s, counts)
	change()
	what := fmt.Sprintf("%d namespaces: new roots", e.n)
	await(b, counts, what, e.n, func() int { _, written := counts.secrets(); return written })
	took := time.Since(counts.firstWrite()) // istiod takes a while to start
	p := m.end(phase{name: what, size: e.n})
	p.took = took
	r.add(b, p)
	after, err := s.Metric(b.Context(), "isthmus_publish_total", `result="published"`)
	require.NoError(b, err)
	r.writes = int(after - before)
	e.check(b, 2)
}

// takeOver ends the leader, so that the replica that waited has to look at
// everything: the same as the restart of a leader, but for its own start.
func takeOver(b *testing.B, e *edges, leader, s *environment.Server, counts *counter, r *report) {
	b.Helper()
	m := begin(b, s, counts)
	leader.Stop()
	what := fmt.Sprintf("%d namespaces: the second leads", e.n)
	await(b, counts, what, e.n, func() int { read, _ := counts.secrets(); return read })
	r.add(b, m.end(phase{name: what, size: e.n}))
}

// measure is the beginning of a phase.
type measure struct {
	b      *testing.B
	server *environment.Server
	counts *counter
	begun  time.Time
	busy   time.Duration
}

func begin(b *testing.B, s *environment.Server, counts *counter) measure {
	b.Helper()
	resetPeak(b, s)
	counts.forget()
	return measure{b: b, server: s, counts: counts, begun: time.Now(), busy: processor(b, s)}
}

// end completes a phase. What was written last comes back as Events, so the
// requests and the memory of a phase that was busy are read a little later.
func (m measure) end(p phase) phase {
	m.b.Helper()
	p.took = time.Since(m.begun)
	if !p.still {
		pause(m.b, "settling", settle)
	}
	p.requests, p.memory, p.busy = m.counts.requests(), memoryOf(m.b, m.server), processor(m.b, m.server)-m.busy
	return p
}

// await waits until a number is reached.
func await(b *testing.B, counts *counter, what string, n int, reached func() int) {
	b.Helper()
	stop := progress(func() string {
		return fmt.Sprintf("%s: %d of %d, %d requests", what, reached(), n, sum(counts.requests()))
	})
	defer stop()
	require.Eventually(b, func() bool { return reached() >= n }, patience, 50*time.Millisecond, what)
}

// pause lets time pass.
func pause(b *testing.B, what string, d time.Duration) {
	b.Helper()
	until := time.Now().Add(d)
	stop := progress(func() string { return fmt.Sprintf("%s: %s to go", what, time.Until(until).Round(time.Second)) })
	defer stop()
	select {
	case <-time.After(d):
	case <-b.Context().Done():
	}
}

// progress says every few seconds how far something is, until it is stopped.
func progress(say func() string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(done)
		wait := 2 * time.Second
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = 10 * time.Second
			fmt.Fprintf(os.Stderr, "%5.0fs  %s\n", time.Since(begun).Seconds(), say())
		}
	}()
	return func() { cancel(); <-done }
}
