//go:build soak

package rotations

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	soon = 2 * time.Minute
	tick = 100 * time.Millisecond
)

// event waits for an Event about istio-certs in whose note a text occurs.
func event(t *testing.T, namespace, reason, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		list, err := world.Kube.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		for _, e := range list.Items {
			if e.Regarding.Kind == "Secret" && e.Reason == reason && strings.Contains(e.Note, text) {
				return true
			}
		}
		return false
	}, soon, tick, "Event %s with %q in namespace %s", reason, text, namespace)
}

// says waits until a log contains a text.
func says(t *testing.T, s *environment.Server, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		log, err := os.ReadFile(s.Log)
		return err == nil && strings.Contains(string(log), text)
	}, soon, tick, "the log says %q", text)
}

// counts waits until a metric is above a value.
func counts(t *testing.T, s *environment.Server, above float64, name string, labels ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		v, err := s.Metric(t.Context(), name, labels...)
		return err == nil && v > above
	}, soon, tick, "%s%v above %v", name, labels, above)
}

// The controller believes in another trust domain than istiod.
func TestWrongTrustDomain(t *testing.T) {
	settings := filepath.Join(t.TempDir(), "settings.yaml")
	require.NoError(t, os.WriteFile(settings, []byte("mesh: {trustDomain: other.example.org}\n"), 0o600))
	c := controller(t, "--settings="+settings)
	ns := world.CreateNamespace(t, nil, "edge")
	world.CreateEdge(t, ns, "front", "edge")
	event(t, ns, "Rejected", "wrong-identity")
	says(t, c, "wrong-identity")
	counts(t, c, 0, "isthmus_bundle_rejected_total", `reason="wrong-identity"`)
	_, err := world.Kube.CoreV1().Secrets(ns).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "nothing wrong is published")
	c.Stop()

	ledger := world.WatchSecret(t, ns, environment.Identity(t, ns, "edge"))
	controller(t)
	ledger.AwaitSerials(t, 1, soon)
	assert.Empty(t, ledger.InvalidVersions())
}

// The publisher finds the files of another service account, then garbage, then
// its own.
func wrongDirectory(t *testing.T) {
	ns := world.CreateNamespace(t, map[string]string{policy.SourceKey: "agent"}, "edge", "other")
	ledger := world.WatchSecret(t, ns, environment.Identity(t, ns, "edge"))
	world.CreateEdge(t, ns, "front", "edge")
	files := map[string]string{}
	for _, account := range []string{"edge", "other"} {
		agent, err := istio.StartAgent(t.Context(), world.Istiod, istio.AgentOptions{Namespace: ns, ServiceAccount: account, TTL: time.Minute})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, agent.Stop()) })
		files[account] = agent.Dir
	}
	dir := t.TempDir()
	put := func(account, name string, change func([]byte) []byte) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(files[account], name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "new"), change(data), 0o600))
		require.NoError(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, name)))
	}
	whole := func(data []byte) []byte { return data }
	half := func(data []byte) []byte { return data[:len(data)/2] }
	for _, name := range []string{"key.pem", "cert-chain.pem", "root-cert.pem"} {
		put("other", name, whole)
	}
	publisher, err := world.StartPublisher(t.Context(), ns, "edge", dir, world.RootsFile(t), "")
	require.NoError(t, err)
	t.Cleanup(publisher.Kill)
	says(t, publisher, "wrong-identity")
	put("edge", "key.pem", whole) // now it is torn
	says(t, publisher, "key-mismatch")
	put("edge", "cert-chain.pem", half)
	says(t, publisher, "malformed")
	assert.Empty(t, ledger.Versions(), "nothing of it is published")
	put("edge", "cert-chain.pem", whole)
	put("edge", "root-cert.pem", whole)
	ledger.AwaitSerials(t, 1, soon)
	put("other", "key.pem", whole)
	put("edge", "cert-chain.pem", half)
	time.Sleep(5 * time.Second) // two looks and a half of the publisher's
	assert.Len(t, ledger.Serials(), 1, "the good old one is not lost to a bad new one")
	assert.Empty(t, ledger.InvalidVersions())
}

// The certificate volume is full when the agent rotates.
func diskFull(t *testing.T) {
	ns := world.CreateNamespace(t, map[string]string{policy.SourceKey: "agent"}, "edge")
	ledger := world.WatchSecret(t, ns, environment.Identity(t, ns, "edge"))
	world.CreateEdge(t, ns, "front", "edge")
	dir := t.TempDir()
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() {
		out, err := exec.Command("umount", "--lazy", dir).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	})
	agent, err := istio.StartAgent(t.Context(), world.Istiod, istio.AgentOptions{Namespace: ns, ServiceAccount: "edge", TTL: time.Minute, Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, agent.Stop()) })
	publisher, err := world.StartPublisher(t.Context(), ns, "edge", dir, world.RootsFile(t), "")
	require.NoError(t, err)
	t.Cleanup(publisher.Kill)
	ledger.AwaitSerials(t, 1, soon)

	junk := filepath.Join(dir, "junk")
	require.Error(t, os.WriteFile(junk, make([]byte, 128<<10), 0o600), "it is full")
	time.Sleep(40 * time.Second) // the agent rotates after 30
	assert.Len(t, ledger.Serials(), 1)
	assert.Empty(t, ledger.InvalidVersions())
	require.NoError(t, os.Remove(junk))
	freed := time.Now()
	ledger.AwaitSerials(t, 2, soon)
	t.Logf("healed %s after there was room again", time.Since(freed))
	assert.Empty(t, ledger.InvalidVersions())
}

// An `istio.<service account>` of an old Istio, and its successor.
func mirror(t *testing.T) {
	ns := world.CreateNamespace(t, map[string]string{policy.SourceKey: "mirror"}, "edge", "reviews")
	id := environment.Identity(t, ns, "edge")
	ledger := world.WatchSecret(t, ns, id)
	world.CreateEdge(t, ns, "front", "edge")
	event(t, ns, "Failed", "istio.edge")
	upstream := world.StartUpstream(t, ns, "reviews", id)
	old := world.WriteCitadelSecret(t, ns, "edge")
	calls := world.StartCaller(t, ledger, upstream)
	for n := 1; n <= 3; n++ {
		ledger.AwaitSerials(t, n, soon)
		old.Rotate(t)
	}
	ledger.AwaitSerials(t, 4, soon)
	flawless(t, ledger, calls)
}
