package publish

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
