//go:build soak

package rotations

import (
	"crypto/x509"
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

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	timeout      = 2 * time.Minute
	pollInterval = 100 * time.Millisecond
)

// awaitEvent waits for an Event about istio-certs with this reason and a text in its note.
func awaitEvent(t *testing.T, namespace, reason, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		list, err := env.Kube.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		for _, e := range list.Items {
			if e.Regarding.Kind == "Secret" && e.Reason == reason && strings.Contains(e.Note, text) {
				return true
			}
		}
		return false
	}, timeout, pollInterval, "Event %s with %q in namespace %s", reason, text, namespace)
}

// awaitLog waits until a log contains a text.
func awaitLog(t *testing.T, s *environment.Server, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		log, err := os.ReadFile(s.Log)
		return err == nil && strings.Contains(string(log), text)
	}, timeout, pollInterval, "the log contains %q", text)
}

// awaitMetric waits until a metric is above a value.
func awaitMetric(t *testing.T, s *environment.Server, above float64, name string, labels ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		v, err := s.Metric(t.Context(), name, labels...)
		return err == nil && v > above
	}, timeout, pollInterval, "%s%v above %v", name, labels, above)
}

// The controller is configured with another trust domain than istiod.
func TestWrongTrustDomainPublishesNothing(t *testing.T) {
	settings := filepath.Join(t.TempDir(), "settings.yaml")
	require.NoError(t, os.WriteFile(settings, []byte("mesh: {trustDomain: other.example.org}\n"), 0o600))
	c := controller(t, "--settings="+settings)
	ns := env.CreateNamespace(t, nil, "edge")
	env.CreateEdge(t, ns, "front", "edge")
	awaitEvent(t, ns, "Rejected", "wrong-identity")
	awaitLog(t, c, "wrong-identity")
	awaitMetric(t, c, 0, "isthmus_bundle_rejected_total", `reason="wrong-identity"`)
	_, err := env.Kube.CoreV1().Secrets(ns).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "nothing wrong is published")
	c.Stop()

	history := env.WatchSecret(t, ns, environment.Identity(t, ns, "edge"))
	controller(t)
	history.AwaitSerials(t, 1, timeout)
	assert.Empty(t, history.InvalidVersions())
}

// The publisher finds the files of another service account, then garbage, then its own.
func wrongCertificateDirectory(t *testing.T) {
	ns := env.CreateNamespace(t, map[string]string{policy.SourceKey: "agent"}, "edge", "other")
	history := env.WatchSecret(t, ns, environment.Identity(t, ns, "edge"))
	env.CreateEdge(t, ns, "front", "edge")
	files := map[string]string{}
	for _, account := range []string{"edge", "other"} {
		agent, err := istio.StartAgent(t.Context(), env.Istiod, istio.AgentOptions{Namespace: ns, ServiceAccount: account, TTL: time.Minute})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, agent.Stop()) })
		files[account] = agent.Dir
	}
	dir := t.TempDir()
	replaceFile := func(account, name string, change func([]byte) []byte) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(files[account], name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "new"), change(data), 0o600))
		require.NoError(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, name)))
	}
	whole := func(data []byte) []byte { return data }
	half := func(data []byte) []byte { return data[:len(data)/2] }
	for _, name := range []string{"key.pem", "cert-chain.pem", "root-cert.pem"} {
		replaceFile("other", name, whole)
	}
	publisher, err := env.StartPublisher(t.Context(), ns, "edge", dir, env.RootsFile(t), "")
	require.NoError(t, err)
	t.Cleanup(publisher.Kill)
	awaitLog(t, publisher, "wrong-identity")
	replaceFile("edge", "key.pem", whole) // the files no longer belong together
	awaitLog(t, publisher, "key-mismatch")
	replaceFile("edge", "cert-chain.pem", half)
	awaitLog(t, publisher, "malformed")
	assert.Empty(t, history.Versions(), "nothing is published")
	replaceFile("edge", "cert-chain.pem", whole)
	replaceFile("edge", "root-cert.pem", whole)
	history.AwaitSerials(t, 1, timeout)
	replaceFile("other", "key.pem", whole)
	replaceFile("edge", "cert-chain.pem", half)
	time.Sleep(5 * time.Second) // two and a half intervals of the publisher's checks
	assert.Len(t, history.Serials(), 1, "the valid Secret stays when new files are invalid")
	assert.Empty(t, history.InvalidVersions())
}

// The certificate volume is full when the agent rotates. The controller then requests the
// certificate itself, at two thirds of the life.
func certificateVolumeFull(t *testing.T) {
	ns := env.CreateNamespace(t, map[string]string{policy.SourceKey: "agent"}, "edge")
	history := env.WatchSecret(t, ns, environment.Identity(t, ns, "edge"))
	env.CreateEdge(t, ns, "front", "edge")
	dir := t.TempDir()
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() {
		out, err := exec.Command("umount", "--lazy", dir).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	})
	agent, err := istio.StartAgent(t.Context(), env.Istiod, istio.AgentOptions{Namespace: ns, ServiceAccount: "edge", TTL: time.Minute, Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, agent.Stop()) })
	publisher, err := env.StartPublisher(t.Context(), ns, "edge", dir, env.RootsFile(t), "")
	require.NoError(t, err)
	t.Cleanup(publisher.Kill)
	history.AwaitSerials(t, 1, timeout)

	junk := filepath.Join(dir, "junk")
	require.Error(t, os.WriteFile(junk, make([]byte, 128<<10), 0o600), "the volume is full")
	written := readLeaf(t, dir)
	history.AwaitSerials(t, 2, timeout)
	assert.Equal(t, "istio-ca", history.Current().Annotations[policy.SourceKey], "the source of the second certificate")
	assert.Equal(t, written.SerialNumber, readLeaf(t, dir).SerialNumber, "the agent could not write")
	awaitEvent(t, ns, "PublisherSilent", "requests one")
	require.NoError(t, os.Remove(junk))
	freed := time.Now()
	require.Eventually(t, func() bool { return readLeaf(t, dir).SerialNumber.Cmp(written.SerialNumber) != 0 }, timeout, pollInterval, "the agent writes again")
	t.Logf("the agent wrote %s after there was space again", time.Since(freed))
	assert.Empty(t, history.InvalidVersions())
}

// readLeaf reads the certificate in a directory of the agent.
func readLeaf(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "cert-chain.pem"))
	require.NoError(t, err)
	chain, err := certs.ParseCertificates(data)
	require.NoError(t, err)
	return chain[0]
}

// The source is a Secret `istio.<service account>` of an old Istio, which is rotated.
func mirroredSecret(t *testing.T) {
	ns := env.CreateNamespace(t, map[string]string{policy.SourceKey: "mirror"}, "edge", "reviews")
	id := environment.Identity(t, ns, "edge")
	history := env.WatchSecret(t, ns, id)
	env.CreateEdge(t, ns, "front", "edge")
	awaitEvent(t, ns, "Failed", "istio.edge")
	upstream := env.StartUpstream(t, ns, "reviews", id)
	old := env.WriteCitadelSecret(t, ns, "edge")
	calls := env.StartCaller(t, history, upstream)
	for n := 1; n <= 3; n++ {
		history.AwaitSerials(t, n, timeout)
		old.Rotate(t)
	}
	history.AwaitSerials(t, 4, timeout)
	assertNothingFailed(t, history, calls)
}
