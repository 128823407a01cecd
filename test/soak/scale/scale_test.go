// Package scale measures the controller against a real API server and a real istiod, with
// hundreds and then with thousands of edge namespaces: memory, requests, and how both grow.
// `make bench-scale` runs it.
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
	// memoryBar is the most memory that the controller may hold, in bytes.
	memoryBar = 150 << 20
	// steadyDuration is how long the steady state is measured.
	steadyDuration = time.Minute
	// timeout limits each part.
	timeout = 8 * time.Minute
	// settleDuration is how long a replica is left alone before it is measured: recent
	// writes come back as watch events, and Go returns memory.
	settleDuration = 3 * time.Second
)

// sizes returns the two numbers of edge namespaces. ISTHMUS_SCALE=50,500 makes a short run,
// to work on the benchmark itself.
func sizes(b *testing.B) (small, large int) {
	b.Helper()
	small, large = 500, 5000
	if text := os.Getenv("ISTHMUS_SCALE"); text != "" {
		_, err := fmt.Sscanf(text, "%d,%d", &small, &large)
		require.NoError(b, err, "ISTHMUS_SCALE: want two numbers, as in 50,500")
	}
	return small, large
}

func BenchmarkController(b *testing.B) {
	if runtime.GOOS != "linux" {
		b.Fatal("memory and processor time are read from /proc, which only Linux has")
	}
	ctrllog.SetLogger(logr.Discard())
	small, large := sizes(b)
	start := time.Now()
	root, next := certtest.NewAuthority(b, certtest.CommonName("root")), certtest.NewAuthority(b, certtest.CommonName("next root"))
	signer := root.Intermediate(b)
	w := startEnvironment(b, istio.Options{CA: istio.NewCA(signer, root)})
	e := newEdges(b, w)
	if w.Plane.Logs == "" {
		b.Cleanup(func() { e.removeNamespaces(b) })
	}
	r := &report{}
	b.Cleanup(func() { r.print(os.Stdout, time.Since(start)) })
	for b.Loop() {
		e.createUntil(b, small)
		smallRun, _ := measureFirstSecrets(b, w, e, r)
		smallRun.Stop()
		e.removeSecrets(b)

		e.createUntil(b, large)
		leader, counts := measureFirstSecrets(b, w, e, r)
		standby, standbyCounts := measureStandby(b, w, r)

		measureNewRoots(b, e, leader, counts, r, func() {
			w.Istiod.Options.CA = istio.NewCA(signer, root, next)
			require.NoError(b, w.Istiod.Restart(b.Context()))
		})
		measureTakeover(b, e, leader, standby, standbyCounts, r)
	}
	r.checkBars(b)
}

// startEnvironment starts the environment.
func startEnvironment(b *testing.B, o istio.Options) *environment.Environment {
	b.Helper()
	stop := progress(func() string { return "starting etcd, API server and istiod, installing the chart" })
	defer stop()
	w, err := environment.Start(b.Context(), o, "{}")
	require.NoError(b, err)
	stopOnSignal(b, w)
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

// stopOnSignal stops the environment when the benchmark is interrupted.
func stopOnSignal(b *testing.B, w *environment.Environment) {
	b.Helper()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	b.Cleanup(func() {
		signal.Stop(signals)
		close(signals)
	})
	go func() {
		if _, received := <-signals; received {
			_ = w.Stop() // processes end with this one
			os.Exit(1)
		}
	}()
}

// startReplica starts a controller with the chart's own arguments and permissions.
func startReplica(b *testing.B, w *environment.Environment) (*environment.Server, *counter) {
	b.Helper()
	counts := newCounter(b, w)
	s, err := counts.env.StartController(b.Context())
	require.NoError(b, err)
	b.Cleanup(s.Kill)
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	go scrape(ctx, s)
	return s, counts
}

// scrape reads the metrics as often as Prometheus does: with series for thousands of Secrets
// that takes memory too.
func scrape(ctx context.Context, s *environment.Server) {
	for s.Running() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(15 * time.Second):
		}
		_, _ = s.Metric(ctx, "isthmus_publish_total") // the replica may end meanwhile
	}
}

// measureFirstSecrets starts a controller while there are no Secrets yet, waits until all
// exist, and measures the steady state.
func measureFirstSecrets(b *testing.B, w *environment.Environment, e *edges, r *report) (*environment.Server, *counter) {
	b.Helper()
	start := time.Now()
	s, counts := startReplica(b, w)
	description := fmt.Sprintf("%d namespaces: first Secrets", e.n)
	await(b, counts, description, e.n, func() int { _, written := counts.secrets(); return written })
	took := time.Since(start)
	pause(b, "settling", settleDuration)
	r.add(b, phase{name: description, size: e.n, took: took, requests: counts.requests(), memory: memoryOf(b, s), cpuTime: readCPUTime(b, s)})
	e.checkSecrets(b, 1)

	m := beginMeasurement(b, s, counts)
	description = fmt.Sprintf("%d namespaces: steady minute", e.n)
	pause(b, description, steadyDuration)
	r.add(b, m.end(phase{name: description, size: e.n, idle: true}))
	return s, counts
}

// measureStandby starts a second replica, which waits to become leader.
func measureStandby(b *testing.B, w *environment.Environment, r *report) (*environment.Server, *counter) {
	b.Helper()
	s, counts := startReplica(b, w)
	m := beginMeasurement(b, s, counts)
	pause(b, "the replica that waits", 10*time.Second)
	r.add(b, m.end(phase{name: "a second replica, waiting", idle: true}))
	return s, counts
}

// measureNewRoots changes the mesh's roots: every Secret follows, with the same key and
// leaf.
func measureNewRoots(b *testing.B, e *edges, s *environment.Server, counts *counter, r *report, change func()) {
	b.Helper()
	before, err := s.Metric(b.Context(), "isthmus_publish_total", `result="published"`)
	require.NoError(b, err)
	m := beginMeasurement(b, s, counts)
	change()
	description := fmt.Sprintf("%d namespaces: new roots", e.n)
	await(b, counts, description, e.n, func() int { _, written := counts.secrets(); return written })
	took := time.Since(counts.firstWrite()) // because istiod takes a while to start
	p := m.end(phase{name: description, size: e.n})
	p.took = took
	r.add(b, p)
	after, err := s.Metric(b.Context(), "isthmus_publish_total", `result="published"`)
	require.NoError(b, err)
	r.writes = int(after - before)
	e.checkSecrets(b, 2)
}

// measureTakeover stops the leader, so that the waiting replica has to check everything: the
// same as the restart of a leader, without its start.
func measureTakeover(b *testing.B, e *edges, leader, s *environment.Server, counts *counter, r *report) {
	b.Helper()
	m := beginMeasurement(b, s, counts)
	leader.Stop()
	description := fmt.Sprintf("%d namespaces: the second leads", e.n)
	await(b, counts, description, e.n, func() int { read, _ := counts.secrets(); return read })
	r.add(b, m.end(phase{name: description, size: e.n}))
}

// measurement is the start of a phase.
type measurement struct {
	b       *testing.B
	server  *environment.Server
	counts  *counter
	start   time.Time
	cpuTime time.Duration
}

func beginMeasurement(b *testing.B, s *environment.Server, counts *counter) measurement {
	b.Helper()
	resetPeak(b, s)
	counts.reset()
	return measurement{b: b, server: s, counts: counts, start: time.Now(), cpuTime: readCPUTime(b, s)}
}

// end completes a phase. Recent writes come back as watch events, so the requests and the
// memory of a busy phase are read a little later.
func (m measurement) end(p phase) phase {
	m.b.Helper()
	p.took = time.Since(m.start)
	if !p.idle {
		pause(m.b, "settling", settleDuration)
	}
	p.requests, p.memory, p.cpuTime = m.counts.requests(), memoryOf(m.b, m.server), readCPUTime(m.b, m.server)-m.cpuTime
	return p
}

// await waits until a number is reached.
func await(b *testing.B, counts *counter, description string, n int, reached func() int) {
	b.Helper()
	stop := progress(func() string {
		return fmt.Sprintf("%s: %d of %d, %d requests", description, reached(), n, sumRequests(counts.requests()))
	})
	defer stop()
	require.Eventually(b, func() bool { return reached() >= n }, timeout, 50*time.Millisecond, description)
}

// pause waits for a duration.
func pause(b *testing.B, description string, d time.Duration) {
	b.Helper()
	until := time.Now().Add(d)
	stop := progress(func() string { return fmt.Sprintf("%s: %s to go", description, time.Until(until).Round(time.Second)) })
	defer stop()
	select {
	case <-time.After(d):
	case <-b.Context().Done():
	}
}

// progress prints the progress of a step every few seconds, until it is stopped.
func progress(message func() string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	start := time.Now()
	go func() {
		defer close(done)
		interval := 2 * time.Second
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(interval):
			}
			interval = 10 * time.Second
			fmt.Fprintf(os.Stderr, "%5.0fs  %s\n", time.Since(start).Seconds(), message())
		}
	}()
	return func() { cancel(); <-done }
}
