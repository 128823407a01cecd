package pilotagents_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// istiod is shared by the tests, which run one after the other. TestMain sets it.
var istiod *istio.Istiod

func TestMain(m *testing.M) {
	os.Exit(istio.Main(m, istio.Options{}, func(_ *rest.Config, i *istio.Istiod) { istiod = i }))
}

// readBundle validates the files of an agent.
func readBundle(t *testing.T, a *istio.Agent, namespace, account string) (*certs.Bundle, error) {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(a.Dir, name))
		require.NoError(t, err)
		return data
	}
	published, err := istiod.Roots(t.Context(), namespace)
	require.NoError(t, err)
	roots, err := certs.ParseCertificates(published)
	require.NoError(t, err)
	id, err := certs.Identity(istio.TrustDomain, namespace, account)
	require.NoError(t, err)
	return certs.New(certs.Material{Key: read("key.pem"), Chain: read("cert-chain.pem"), Roots: read("root-cert.pem")},
		certs.Want{ID: id, Roots: roots, Now: time.Now()})
}

func startAgent(t *testing.T, o istio.AgentOptions) *istio.Agent {
	t.Helper()
	a, err := istio.StartAgent(t.Context(), istiod, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			a.Dump(os.Stderr)
		}
		assert.NoError(t, a.Stop())
	})
	return a
}

func TestAgentsRunSideBySide(t *testing.T) {
	require.NoError(t, istiod.CreateNamespace(t.Context(), "agents", nil, "one", "two"))
	one := startAgent(t, istio.AgentOptions{Namespace: "agents", ServiceAccount: "one"})
	two := startAgent(t, istio.AgentOptions{Namespace: "agents", ServiceAccount: "two", Dir: t.TempDir(), TTL: time.Hour})
	t.Logf("ready after %s and %s", one.StartDuration, two.StartDuration)

	first, err := readBundle(t, one, "agents", "one")
	require.NoError(t, err)
	assert.Equal(t, "spiffe://cluster.local/ns/agents/sa/one", first.ID().String())
	assert.WithinDuration(t, time.Now().Add(24*time.Hour), first.NotAfter(), time.Minute)
	second, err := readBundle(t, two, "agents", "two")
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(time.Hour), second.NotAfter(), time.Minute)
	_, err = readBundle(t, two, "agents", "one")
	assert.ErrorContains(t, err, "wrong-identity")
}

func TestAgentRotatesItsCertificate(t *testing.T) {
	require.NoError(t, istiod.CreateNamespace(t.Context(), "rotation", nil, "edge"))
	a := startAgent(t, istio.AgentOptions{
		Namespace: "rotation", ServiceAccount: "edge", TTL: 30 * time.Second,
		Env: map[string]string{"SECRET_GRACE_PERIOD_RATIO": "0.95"}, // renew when 95 % of the life is left
	})
	before, err := readBundle(t, a, "rotation", "edge")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		after, err := readBundle(t, a, "rotation", "edge")
		return err == nil && after.Serial() != before.Serial()
	}, time.Minute, 20*time.Millisecond)
}

func TestPluggedInAuthoritySignsAfterARestart(t *testing.T) {
	t.Cleanup(func() {
		istiod.Options.CA = nil
		assert.NoError(t, istiod.Restart(context.WithoutCancel(t.Context())))
	})
	root := certtest.NewAuthority(t, certtest.CommonName("plugged in"))
	istiod.Kill()
	istiod.Options.CA = istio.NewCA(root.Intermediate(t), root)
	require.NoError(t, istiod.Restart(t.Context()))
	t.Logf("restarted in %s", istiod.StartDuration)

	require.NoError(t, istiod.CreateNamespace(t.Context(), "plugged", nil, "edge"))
	a := startAgent(t, istio.AgentOptions{Namespace: "plugged", ServiceAccount: "edge"})
	got, err := readBundle(t, a, "plugged", "edge")
	require.NoError(t, err)
	assert.Equal(t, string(root.CertificatePEM), string(got.Roots()))
	chain, err := certs.ParseCertificates(got.Chain())
	require.NoError(t, err)
	assert.Len(t, chain, 2, "leaf and intermediate, without the root")
}
