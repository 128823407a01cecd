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

// The mesh's root is replaced as in Istio's documentation of plugged-in CAs: both roots are
// trusted, then the new one signs, then the old one is removed. The controller's Secret and
// the publisher's both follow, and no call fails.
func TestRotationOfTheRootFailsNoCall(t *testing.T) {
	controller(t)
	byController := env.CreateNamespace(t, nil, "edge", "reviews")
	byAgent := env.CreateNamespace(t, map[string]string{policy.SourceKey: "agent"}, "edge", "reviews")
	agent, err := istio.StartAgent(t.Context(), env.Istiod, istio.AgentOptions{Namespace: byAgent, ServiceAccount: "edge", TTL: time.Minute})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, agent.Stop()) })
	roots := env.RootsFile(t)
	publisher, err := env.StartPublisher(t.Context(), byAgent, "edge", agent.Dir, roots, "")
	require.NoError(t, err)
	t.Cleanup(publisher.Kill)

	var histories []*environment.SecretHistory
	var callers []*environment.Caller
	for _, ns := range []string{byController, byAgent} {
		id := environment.Identity(t, ns, "edge")
		history := env.WatchSecret(t, ns, id)
		upstream := env.StartUpstream(t, ns, "reviews", id)
		env.CreateEdge(t, ns, "front", "edge")
		histories, callers = append(histories, history), append(callers, env.StartCaller(t, history, upstream))
	}
	await := func(description string, condition func(*corev1.Secret) bool) {
		t.Helper()
		for _, history := range histories {
			require.Eventually(t, func() bool { return condition(history.Current()) }, 3*time.Minute, 100*time.Millisecond, description)
		}
		t.Logf("%s", description)
	}
	switchRoots := func(signer *certtest.Pair, trusted ...*certtest.Pair) {
		t.Helper()
		env.Istiod.Options.CA = istio.NewCA(signer.Intermediate(t), trusted...)
		require.NoError(t, env.Istiod.Restart(t.Context()))
		require.NoError(t, agent.RefreshRoots(t.Context()))
		data, err := env.Istiod.Roots(t.Context(), istio.Namespace)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(roots+".new", data, 0o600))
		require.NoError(t, os.Rename(roots+".new", roots))
	}
	t.Cleanup(func() {
		env.Istiod.Options.CA = istio.NewCA(oldRoot.Intermediate(t), oldRoot)
		assert.NoError(t, env.Istiod.Restart(context.Background()))
	})

	switchRoots(oldRoot, oldRoot, newRoot)
	await("both roots are in the Secret", func(s *corev1.Secret) bool {
		return bytes.Count(s.Data["ca.crt"], []byte("BEGIN")) == 2
	})
	switchRoots(newRoot, oldRoot, newRoot)
	await("the new root signed", func(s *corev1.Secret) bool { return issuedUnder(s, newRoot) })
	time.Sleep(10 * time.Second) // the upstream, which is no part of Isthmus, renews every five
	switchRoots(newRoot, newRoot)
	await("the old root is gone", func(s *corev1.Secret) bool {
		return bytes.Equal(s.Data["ca.crt"], newRoot.CertificatePEM)
	})
	for i := range histories {
		assertNothingFailed(t, histories[i], callers[i])
	}
}

// issuedUnder reports whether the chain of a Secret leads to a root.
func issuedUnder(s *corev1.Secret, root *certtest.Pair) bool {
	chain, err := certs.ParseCertificates(s.Data["tls.crt"])
	if err != nil {
		return false
	}
	return chain[len(chain)-1].CheckSignatureFrom(root.Certificate) == nil
}
