package renewal

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// addToMeshConfig appends YAML to MeshConfig until the test ends.
func addToMeshConfig(t *testing.T, text string) {
	t.Helper()
	api := env.Kube.CoreV1().ConfigMaps(istio.Namespace)
	set := func(ctx context.Context, change func(string) string) {
		cm, err := api.Get(ctx, "istio", metav1.GetOptions{})
		require.NoError(t, err)
		cm.Data["mesh"] = change(cm.Data["mesh"])
		_, err = api.Update(ctx, cm, metav1.UpdateOptions{})
		require.NoError(t, err)
	}
	set(t.Context(), func(s string) string { return s + text })
	t.Cleanup(func() {
		set(context.WithoutCancel(t.Context()), func(s string) string { return strings.Replace(s, text, "", 1) })
	})
}

// awaitSecret waits until the Secret of a namespace satisfies a condition.
func awaitSecret(t *testing.T, namespace, description string, condition func(*corev1.Secret) bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		s, err := env.Kube.CoreV1().Secrets(namespace).Get(t.Context(), "istio-certs", metav1.GetOptions{})
		return err == nil && condition(s)
	}, time.Minute, 50*time.Millisecond, description)
}

func TestKeysFollowMeshConfig(t *testing.T) {
	addToMeshConfig(t, "  proxyMetadata:\n    ECC_SIGNATURE_ALGORITHM: ECDSA\n    ECC_CURVE: P384\n")
	controller, err := env.StartController(t.Context(), "--look-interval=1s")
	require.NoError(t, err)
	t.Cleanup(controller.Stop)
	ns := env.CreateNamespace(t, nil, "edge")
	env.CreateEdge(t, ns, "front", "edge")
	awaitSecret(t, ns, "the Secret has a key of P-384", func(s *corev1.Secret) bool {
		pair, err := tls.X509KeyPair(s.Data["tls.crt"], s.Data["tls.key"])
		if err != nil {
			return false
		}
		key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
		return ok && key.Curve == elliptic.P384()
	})
}

func TestRootsOfMeshConfigReachTheSecret(t *testing.T) {
	controller, err := env.StartController(t.Context(), "--look-interval=1s")
	require.NoError(t, err)
	t.Cleanup(controller.Stop)
	ns := env.CreateNamespace(t, nil, "edge")
	env.CreateEdge(t, ns, "front", "edge")
	holds := func(s *corev1.Secret, root *x509.Certificate) bool {
		for _, key := range []string{"ca.crt", "root-cert.pem"} {
			roots, err := certs.ParseCertificates(s.Data[key])
			if err != nil || !slices.ContainsFunc(roots, root.Equal) {
				return false
			}
		}
		return true
	}
	published, err := env.Istiod.Roots(t.Context(), ns)
	require.NoError(t, err)
	own, err := certs.ParseCertificates(published)
	require.NoError(t, err)
	awaitSecret(t, ns, "the Secret is there", func(s *corev1.Secret) bool { return holds(s, own[0]) })

	second := certtest.NewAuthority(t)
	start := time.Now()
	addToMeshConfig(t, "caCertificates:\n- pem: |\n    "+strings.ReplaceAll(strings.TrimSpace(string(second.CertificatePEM)), "\n", "\n    ")+"\n")
	awaitSecret(t, ns, "the second root is in the Secret", func(s *corev1.Secret) bool {
		return holds(s, second.Certificate) && holds(s, own[0])
	})
	t.Logf("the root was in the Secret after %s", time.Since(start))

	// istiod renews as before: its own certificate is verified by its own roots.
	id := environment.Identity(t, ns, "edge")
	history := env.WatchSecret(t, ns, id)
	history.AwaitSerials(t, 2, time.Minute)
	assert.Empty(t, history.InvalidVersions())
}
