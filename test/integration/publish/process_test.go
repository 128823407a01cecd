package publish

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

const (
	timeout      = 60 * time.Second
	pollInterval = 10 * time.Millisecond
)

func TestProcessFollowsTheAgent(t *testing.T) {
	e := newEdge(t)
	a, h := newAgent(t, e), e.watch()
	p := a.start()
	require.Eventually(t, p.hasLogged(func(l logLine) bool { return l.Msg == "watching the certificate directory" }), timeout, pollInterval)
	var serials, keys []string
	for range 10 {
		leaf := a.next()
		a.rotate(leaf)
		h.await(t, serialOf(leaf))
		serials, keys = append(serials, serialOf(leaf)), append(keys, string(leaf.KeyPEM))
	}
	var seen []string
	for _, version := range h.all() {
		e.assertComplete(version)
		seen = append(seen, version.Annotations[serialKey])
	}
	assert.Equal(t, serials, seen, "one write per rotation, in order")
	rss, anonymous := memory(t, p)
	t.Logf("after ten rotations: %.1f MiB resident, %.1f MiB of it anonymous", rss, anonymous)
	assert.Less(t, rss, 20.0, "MiB resident")

	require.NoError(t, p.command.Process.Signal(syscall.SIGTERM))
	begin := time.Now()
	p.awaitExit()
	assert.Equal(t, 0, p.command.ProcessState.ExitCode())
	assert.Less(t, time.Since(begin), 5*time.Second)
	for _, key := range keys {
		for _, secret := range strings.Split(strings.TrimSpace(key), "\n")[1:3] {
			assert.NotContains(t, p.text(), secret)
		}
	}
	for _, l := range p.lines() {
		assert.Equal(t, e.namespace+"/istio-certs", l.Secret)
		assert.Equal(t, "edge-0", l.Pod)
	}
}

func TestProcessWritesOnlyWhatIsDueOrDamaged(t *testing.T) {
	e := newEdge(t)
	a, h := newAgent(t, e), e.watch()
	now := time.Now()
	first := e.leaf(now, now.Add(24*time.Hour))
	a.rotate(first)
	p := a.start("--log-level=debug", "--check-every=200ms")
	h.await(t, serialOf(first))
	a.rotate(e.leaf(now, now.Add(48*time.Hour)))
	require.Eventually(t, p.hasLogged(func(l logLine) bool { return l.Result == "unchanged" && l.Reason == "not-due" }), timeout, pollInterval)

	// The agent is between two files, or writes the key of another certificate.
	a.write("key.pem", e.leaf(now, now.Add(72*time.Hour)).KeyPEM)
	require.Eventually(t, p.hasLogged(func(l logLine) bool { return l.Reason == "key-mismatch" }), timeout, pollInterval)

	e.remove()
	require.Eventually(t, func() bool { return len(h.all()) == 2 }, timeout, pollInterval, "a deleted Secret is created again")
	e.edit(func(s *corev1.Secret) { s.Data["tls.key"] = []byte("damaged") })
	require.Eventually(t, func() bool { return len(h.all()) == 4 }, timeout, pollInterval, "a damaged Secret is repaired")
	e.assertComplete(e.secret())
}

// Only the timer causes the write: the new certificate is in the directory long before
// the renewal point.
func TestProcessPublishesWhenDue(t *testing.T) {
	e := newEdge(t)
	a, h := newAgent(t, e), e.watch()
	now := time.Now()
	first, second := e.leaf(now.Add(-time.Second), now.Add(12*time.Second)), e.leaf(now, now.Add(time.Hour))
	a.rotate(first)
	p := a.start("--log-level=debug", "--check-every=1h")
	h.await(t, serialOf(first))
	a.rotate(second)
	require.Eventually(t, p.hasLogged(func(l logLine) bool { return l.Reason == "not-due" }), timeout, pollInterval)
	written := h.await(t, serialOf(second))
	due, err := time.Parse(time.RFC3339, h.all()[0].Annotations["isthmus.dev/renew-after"])
	require.NoError(t, err)
	assert.True(t, written.After(due), "%s is not before %s", written, due)
	assert.Len(t, h.all(), 2)
}

func TestProcessKeepsRootsUpToDate(t *testing.T) {
	e := newEdge(t)
	a, h := newAgent(t, e), e.watch()
	leaf := e.leaf(time.Now(), time.Now().Add(24*time.Hour))
	a.rotate(leaf)
	a.start()
	h.await(t, serialOf(leaf))
	both := append(slices.Clone(e.root.CertificatePEM), certtest.NewAuthority(t).CertificatePEM...)
	require.NoError(t, os.WriteFile(a.roots+".tmp", both, 0o600))
	require.NoError(t, os.Rename(a.roots+".tmp", a.roots))
	require.Eventually(t, func() bool { return len(h.all()) == 2 }, timeout, pollInterval)
	now := e.secret()
	assert.Equal(t, serialOf(leaf), now.Annotations[serialKey], "the leaf stays")
	for _, key := range []string{"ca.crt", "root-cert.pem"} {
		assert.Len(t, now.Data[key], len(both), key)
	}
}

func TestProcessRefusesAForeignSecretUntilItIsAdopted(t *testing.T) {
	e := newEdge(t)
	before := e.create(func(*corev1.Secret) {})
	a := newAgent(t, e)
	leaf := a.next()
	a.rotate(leaf)
	p := a.start("--check-every=200ms", "--log-level=debug")
	foreign := func(l logLine) bool { return l.Msg == "not published" && l.Result == "foreign" }
	require.Eventually(t, func() bool {
		n := 0
		for _, l := range p.lines() {
			if foreign(l) {
				n++
			}
		}
		return n >= 3
	}, timeout, pollInterval, "it continues to check")
	warned := 0
	for _, l := range p.lines() {
		if foreign(l) && l.Level == "WARN" {
			warned++
			assert.Contains(t, l.Error, `annotate it isthmus.dev/adopt: "true"`)
		}
	}
	assert.Equal(t, 1, warned, "it warns once")
	assert.Equal(t, before, e.secret())

	e.edit(func(s *corev1.Secret) { s.Annotations = map[string]string{adoptKey: "true"} })
	require.Eventually(t, func() bool { return e.secret().Annotations[serialKey] == serialOf(leaf) }, timeout, pollInterval)
	e.assertComplete(e.secret())
}

// The process is killed at random points while the agent continues to rotate.
func TestProcessMayBeKilledAtAnyPoint(t *testing.T) {
	e := newEdge(t)
	a, h := newAgent(t, e), e.watch()
	stop, rotated := make(chan struct{}), make(chan *certtest.Pair)
	go func() {
		for {
			a.rotate(a.next())
			select {
			case <-stop:
				leaf := a.last()
				a.rotate(leaf)
				rotated <- leaf
				return
			case <-time.After(40 * time.Millisecond):
			}
		}
	}()
	for range 20 {
		p := a.start()
		time.Sleep(time.Duration(rand.Int64N(int64(250 * time.Millisecond)))) // a random point
		require.NoError(t, p.command.Process.Kill())
		p.awaitExit()
	}
	close(stop)
	last := <-rotated
	killed := len(h.all())
	a.start()
	h.await(t, serialOf(last))
	for _, version := range h.all() {
		e.assertComplete(version)
	}
	t.Logf("%d rotations, %d versions while the process was killed", a.written, killed)
	assert.Greater(t, killed, 10, "it published in between")
}

func TestProcessOutlivesTheAPIServer(t *testing.T) {
	e := newEdge(t)
	a, h := newAgent(t, e), e.watch()
	proxy := newProxy(t, e.account.Host)
	first, second := a.next(), a.next()
	a.rotate(first)
	p := a.startAt(proxy.url)
	h.await(t, serialOf(first))

	proxy.disconnect()
	a.rotate(second)
	require.Eventually(t, p.hasLogged(func(l logLine) bool { return l.Result == "error" && strings.Contains(l.Error, "read secret ") }), timeout, pollInterval)
	assert.Equal(t, serialOf(first), e.secret().Annotations[serialKey], "the old certificate stays")
	proxy.listen()
	h.await(t, serialOf(second))
	assert.Len(t, h.all(), 2)
	e.assertComplete(e.secret())
}

// Nothing but the watch notices a change within an hour. Of many publishers few write.
func TestProcessesRepairAChangedSecretAtOnce(t *testing.T) {
	e := newEdge(t)
	a, h := newAgent(t, e), e.watch()
	leaf := e.leaf(time.Now(), time.Now().Add(24*time.Hour))
	a.rotate(leaf)
	const replicas = 5
	for range replicas {
		a.start("--check-every=1h")
	}
	h.await(t, serialOf(leaf))
	isGood := func() bool {
		s, err := e.admin.CoreV1().Secrets(e.namespace).Get(t.Context(), secretName, metav1.GetOptions{})
		return err == nil && s.Annotations[serialKey] == serialOf(leaf) && string(s.Data["tls.key"]) != "damaged"
	}
	const damages = 6
	for i := range damages {
		if i%2 == 0 {
			e.remove()
		} else {
			e.edit(func(s *corev1.Secret) { s.Data["tls.key"] = []byte("damaged") })
		}
		require.Eventually(t, isGood, timeout, pollInterval)
	}
	t.Logf("%d versions after %d damages with %d publishers", len(h.all()), damages, replicas)
	assert.Less(t, len(h.all()), 1+damages/2+damages*replicas/2, "not every publisher writes")
	e.assertComplete(e.secret())
}

// The publisher starts without a way to reach the API server, outlives a lost terminal, and
// misses a rotation. It says so and publishes the next.
func TestProcessStartsWithoutCredentials(t *testing.T) {
	e := newEdge(t)
	a, h := newAgent(t, e), e.watch()
	credentials := filepath.Join(t.TempDir(), "kubeconfig")
	missed, next := a.next(), a.next()
	a.rotate(missed)
	p := a.start("--kubeconfig=" + credentials)
	require.Eventually(t, p.hasLogged(func(l logLine) bool {
		return l.Level == "WARN" && l.Msg == "cannot publish; trying again" && strings.Contains(l.Error, credentials)
	}), timeout, pollInterval)
	require.NoError(t, p.command.Process.Signal(syscall.SIGHUP))
	a.rotate(next)
	require.NoError(t, os.Rename(a.kubeconfig(e.account.Host), credentials))
	h.await(t, serialOf(next))
	e.assertComplete(e.secret())
	require.NoError(t, p.command.Process.Signal(syscall.SIGTERM))
	p.awaitExit()
	assert.Equal(t, 0, p.command.ProcessState.ExitCode())
}

func TestProcessWaitsForItsDirectory(t *testing.T) {
	e := newEdge(t)
	a, h := newAgent(t, e), e.watch()
	away := a.dir + ".away"
	require.NoError(t, os.Rename(a.dir, away))
	p := a.start()
	require.Eventually(t, p.hasLogged(func(l logLine) bool { return l.Msg == "waiting for certificate files" }), timeout, pollInterval)
	leaf := a.next()
	require.NoError(t, os.Rename(away, a.dir))
	a.rotate(leaf)
	h.await(t, serialOf(leaf))
	e.assertComplete(e.secret())
}

// BenchmarkRotation measures a rotation at the renewal point, from the rename of the
// chain until a watch shows the Secret, and the memory of the process.
func BenchmarkRotation(b *testing.B) {
	const rounds, rotations = 3, 70
	e := newEdge(b)
	a, h := newAgent(b, e), e.watch()
	p := a.start()
	for b.Loop() {
		var durations []time.Duration
		for range rounds {
			a.written = 0
			for range rotations {
				leaf := a.next()
				at := a.rotate(leaf)
				durations = append(durations, h.await(b, serialOf(leaf)).Sub(at))
				time.Sleep(150 * time.Millisecond) // rotations are hours apart, and requests limited
			}
			e.remove()
		}
		slices.Sort(durations)
		b.ReportMetric(float64(durations[len(durations)/2])/1e6, "ms-p50")
		b.ReportMetric(float64(durations[len(durations)*99/100])/1e6, "ms-p99")
		b.ReportMetric(0, "ns/op") // meaningless here
		rss, anonymous := memory(b, p)
		b.ReportMetric(rss, "MiB-resident")
		b.ReportMetric(anonymous, "MiB-anonymous")
	}
}
