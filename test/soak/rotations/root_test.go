//go:build soak

package rotations

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The mesh's root is replaced the way Istio's documentation of plugged-in CAs
// has it: both are trusted, then the new one signs, then the old one goes. The
// controller's Secret and the publisher's both follow, and no call fails.
func TestRootRotation(t *testing.T) {
	controller(t)
	byController := world.CreateNamespace(t, nil, "edge", "reviews")
	byAgent := world.CreateNamespace(t, map[string]string{policy.SourceKey: "agent"}, "edge", "reviews")
	agent, err := istio.StartAgent(t.Context(), world.Istiod, istio.AgentOptions{Namespace: byAgent, ServiceAccount: "edge", TTL: time.Minute})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, agent.Stop()) })
	roots := world.RootsFile(t)
	publisher, err := world.StartPublisher(t.Context(), byAgent, "edge", agent.Dir, roots, "")
	require.NoError(t, err)
	t.Cleanup(publisher.Kill)

	var ledgers []*environment.SecretHistory
	var callers []*environment.Caller
	for _, ns := range []string{byController, byAgent} {
		id := environment.Identity(t, ns, "edge")
		ledger := world.WatchSecret(t, ns, id)
		upstream := world.StartUpstream(t, ns, "reviews", id)
		world.CreateEdge(t, ns, "front", "edge")
		ledgers, callers = append(ledgers, ledger), append(callers, world.StartCaller(t, ledger, upstream))
	}
	await := func(what string, is func(*corev1.Secret) bool) {
		t.Helper()
		for _, l := range ledgers {
			require.Eventually(t, func() bool { return is(l.Current()) }, 3*time.Minute, 100*time.Millisecond, what)
		}
		t.Logf("%s", what)
	}
	turn := func(signer *certtest.Pair, trusted ...*certtest.Pair) {
		t.Helper()
		world.Istiod.Options.CA = istio.NewCA(signer.Intermediate(t), trusted...)
		require.NoError(t, world.Istiod.Restart(t.Context()))
		require.NoError(t, agent.RefreshRoots(t.Context()))
		data, err := world.Istiod.Roots(t.Context(), istio.Namespace)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(roots+".new", data, 0o600))
		require.NoError(t, os.Rename(roots+".new", roots))
	}
	t.Cleanup(func() {
		world.Istiod.Options.CA = istio.NewCA(before.Intermediate(t), before)
		assert.NoError(t, world.Istiod.Restart(context.Background()))
	})

	turn(before, before, after)
	await("both roots are in the Secret", func(s *corev1.Secret) bool {
		return bytes.Count(s.Data["ca.crt"], []byte("BEGIN")) == 2
	})
	turn(after, before, after)
	await("the new root signed", func(s *corev1.Secret) bool { return issuedUnder(s, after) })
	time.Sleep(10 * time.Second) // the upstream, which is no part of Isthmus, renews every five
	turn(after, after)
	await("the old root is gone", func(s *corev1.Secret) bool {
		return bytes.Equal(s.Data["ca.crt"], after.CertificatePEM)
	})
	for i := range ledgers {
		flawless(t, ledgers[i], callers[i])
	}
}

// issuedUnder says whether the chain of a Secret leads to a root.
func issuedUnder(s *corev1.Secret, root *certtest.Pair) bool {
	chain, err := certs.ParseCertificates(s.Data["tls.crt"])
	if err != nil {
		return false
	}
	return chain[len(chain)-1].CheckSignatureFrom(root.Certificate) == nil
}
