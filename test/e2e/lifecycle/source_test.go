//go:build e2e

package lifecycle

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/node"
)

// changeCertificateSource gives the webhook a user's own certificate in the two steps of
// docs/install.md; no pod is refused. On the way back some pods are refused until the
// controller has written the caBundle.
func (r *releaseTest) changeCertificateSource(t *testing.T) {
	ca := certtest.NewAuthority(t)
	leaf := ca.Leaf(t, certtest.DNSNames("isthmus-webhook."+node.Namespace+".svc"))
	secrets := r.Client.CoreV1().Secrets(node.Namespace)
	_, err := secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "lifecycle-tls"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: leaf.CertificatePEM, corev1.TLSPrivateKeyKey: leaf.KeyPEM},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := secrets.Delete(context.WithoutCancel(t.Context()), "lifecycle-tls", metav1.DeleteOptions{}); err != nil {
			t.Errorf("remove the certificate: %v", err)
		}
	})
	bothCAs, userCA := filepath.Join(t.TempDir(), "both.pem"), filepath.Join(t.TempDir(), "ca.pem")
	currentBundle := r.configuration(t).Webhooks[0].ClientConfig.CABundle
	require.NoError(t, os.WriteFile(bothCAs, append(currentBundle, ca.CertificatePEM...), 0o600))
	require.NoError(t, os.WriteFile(userCA, ca.CertificatePEM, 0o600))
	r.creator.Drain()

	r.upgrade(t, "--set", "certificate.mode=existing,certificate.existing.secretName=lifecycle-tls", "--set-file", "certificate.existing.caBundle="+bothCAs)
	r.awaitRequestedPods(t, 40)
	r.assertNothingFailed(t, "a certificate of the user's, beside the controller's")
	r.upgrade(t, "--set-file", "certificate.existing.caBundle="+userCA)
	r.awaitRequestedPods(t, 40)
	r.assertNothingFailed(t, "a certificate of the user's alone")

	r.upgrade(t, "--set", "certificate.mode=self-managed,certificate.existing.secretName=,certificate.existing.caBundle=")
	count := r.creator.Drain()
	t.Logf("back to the controller's: %s", count)
	assert.Zero(t, count.NotInjected)
	r.awaitRequestedPods(t, 40)
	r.assertNothingFailed(t, "the controller's certificate")
}
