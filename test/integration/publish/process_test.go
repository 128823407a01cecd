package publish

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// program is isthmus-publish, built once with the flags of the image.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(folder, "isthmus-publish")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "../../../cmd/isthmus-publish")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// agent writes a directory like Istio's agent.
type agent struct {
	*edge
	dir, roots string
	written    int
}

func newAgent(t testing.TB, e *edge) *agent {
	t.Helper()
	a := &agent{edge: e, dir: filepath.Join(t.TempDir(), "istio-certs"), roots: filepath.Join(t.TempDir(), "root-cert.pem")}
	require.NoError(t, os.Mkdir(a.dir, 0o755))
	require.NoError(t, os.WriteFile(a.roots, e.root.CertificatePEM, 0o600))
	return a
}

// next returns a certificate that is due as soon as it is published. For most rotations
// of a test it lives enough longer than the previous one to replace it.
func (a *agent) next() *certtest.Pair {
	a.written++
	return a.leafIssuedLongAgo(time.Duration(min(math.Pow(1.12, float64(a.written))*float64(2*time.Minute), float64(400*time.Hour))))
}

// last returns a certificate that replaces every one of next.
func (a *agent) last() *certtest.Pair { return a.leafIssuedLongAgo(480 * time.Hour) }

func (a *agent) leafIssuedLongAgo(rest time.Duration) *certtest.Pair {
	now := time.Now()
	return a.leaf(now.Add(-1000*time.Hour), now.Add(rest))
}

// rotate writes key, chain and root one after the other, each by a rename, and returns
// the time at which the pair was complete.
func (a *agent) rotate(leaf *certtest.Pair) time.Time {
	a.write("key.pem", leaf.KeyPEM)
	a.write("cert-chain.pem", append(slices.Clone(leaf.ChainPEM), a.root.CertificatePEM...))
	at := time.Now()
	a.write("root-cert.pem", a.root.CertificatePEM)
	return at
}

func (a *agent) write(name string, data []byte) {
	a.t.Helper()
	temporary := filepath.Join(a.dir, name+".tmp")
	require.NoError(a.t, os.WriteFile(temporary, data, 0o600))
	require.NoError(a.t, os.Rename(temporary, filepath.Join(a.dir, name)))
}

func serialOf(p *certtest.Pair) string { return fmt.Sprintf("%X", p.Certificate.SerialNumber) }

// kubeconfig is a kubeconfig of the edge's account for an API server address.
func (a *agent) kubeconfig(address string) string {
	a.t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["c"] = &clientcmdapi.Cluster{
		Server: address, CertificateAuthority: a.account.CAFile, CertificateAuthorityData: a.account.CAData,
	}
	c.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: a.account.BearerToken}
	c.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	c.CurrentContext = "x"
	path := filepath.Join(a.t.TempDir(), "kubeconfig")
	require.NoError(a.t, clientcmd.WriteToFile(*c, path))
	return path
}

// process is a running isthmus-publish.
type process struct {
	t       testing.TB
	command *exec.Cmd
	ended   chan error

	mu  sync.Mutex
	log bytes.Buffer
}

// logLine is a line of its log.
type logLine struct {
	Level, Msg, Result, Reason, Error, Secret, Pod string
}

// start starts isthmus-publish beside the agent. It is killed when the test ends.
func (a *agent) start(arguments ...string) *process {
	a.t.Helper()
	return a.startAt(a.account.Host, arguments...)
}

func (a *agent) startAt(address string, arguments ...string) *process {
	a.t.Helper()
	path, err := program()
	require.NoError(a.t, err)
	p := &process{t: a.t, ended: make(chan error, 1)}
	p.command = exec.Command(path, append([]string{
		"--dir=" + a.dir, "--secret=" + secretName, "--trust-domain=" + trustDomain, "--roots-file=" + a.roots,
		"--kubeconfig=" + a.kubeconfig(address),
	}, arguments...)...)
	p.command.Env = []string{"POD_NAMESPACE=" + a.namespace, "SERVICE_ACCOUNT=" + account, "POD_NAME=edge-0", "GOMEMLIMIT=57MiB"}
	out, err := p.command.StderrPipe()
	require.NoError(a.t, err)
	require.NoError(a.t, p.command.Start())
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.mu.Lock()
			p.log.Write(append(lines.Bytes(), '\n'))
			p.mu.Unlock()
		}
		p.ended <- p.command.Wait()
	}()
	a.t.Cleanup(func() {
		_ = p.command.Process.Kill()
		p.awaitExit()
		if a.t.Failed() {
			a.t.Logf("log of isthmus-publish:\n%s", p.text())
		}
	})
	return p
}

func (p *process) awaitExit() {
	select {
	case err := <-p.ended:
		p.ended <- err
	case <-time.After(30 * time.Second):
		assert.Fail(p.t, "isthmus-publish does not exit")
	}
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// lines parses the log, which has to be JSON.
func (p *process) lines() []logLine {
	p.t.Helper()
	var all []logLine
	for _, text := range strings.Split(strings.TrimSpace(p.text()), "\n") {
		var l logLine
		if text != "" && assert.NoError(p.t, json.Unmarshal([]byte(text), &l), text) {
			all = append(all, l)
		}
	}
	return all
}

func (p *process) hasLogged(want func(logLine) bool) func() bool {
	return func() bool { return slices.ContainsFunc(p.lines(), want) }
}

const (
	timeout      = 60 * time.Second
	pollInterval = 10 * time.Millisecond
)

func TestProcessFollowsTheAgent(t *testing.T) {
	e := newEdge(t)
	a, h := newAgent(t, e), e.watch()
	p := a.start()
	require.Eventually(t, p.hasLogged(func(l logLine) bool { return l.Msg == "following" }), timeout, pollInterval)
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

// memory is VmRSS and RssAnon in MiB.
func memory(t testing.TB, p *process) (rss, anonymous float64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	require.NoError(t, err)
	field := func(name string) float64 {
		_, rest, _ := strings.Cut(string(status), name+":")
		text, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		kib, err := strconv.ParseFloat(text, 64)
		require.NoError(t, err)
		return kib / 1024
	}
	return field("VmRSS"), field("RssAnon")
}

// proxy is a TCP proxy to the API server that can be disconnected.
type proxy struct {
	t            testing.TB
	url, address string
	server       string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
}

func newProxy(t testing.TB, address string) *proxy {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	p := &proxy{t: t, server: u.Host, address: net.JoinHostPort(u.Hostname(), "0")}
	p.listen()
	u.Host = p.address
	p.url = u.String()
	t.Cleanup(p.disconnect)
	return p
}

func (p *proxy) listen() {
	p.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", p.address)
	require.NoError(p.t, err)
	p.mu.Lock()
	p.listener, p.address = l, l.Addr().String()
	p.mu.Unlock()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", p.server)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			go func() { _, _ = io.Copy(in, out) }()
			go func() { _, _ = io.Copy(out, in) }()
		}
	}()
}

// disconnect closes every connection and accepts no new one.
func (p *proxy) disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.listener.Close()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}
