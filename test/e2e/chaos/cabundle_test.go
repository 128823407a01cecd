//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

const webhookConfiguration = "isthmus-injector"

// Another client writes another CA bundle into the webhook configuration, or removes it.
func TestWrongCABundleIsRestored(t *testing.T) {
	trial(t, "wrong caBundle written", func(ctx context.Context, tr *Trial) {
		tr.ExpectRefusedPods("the API server does not trust the webhook until the controller has restored the bundle")
		api := cluster.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
		right := tr.caBundle(ctx)
		other := certtest.NewAuthority(tr, certtest.CommonName("another")).CertificatePEM
		for _, wrong := range [][]byte{other, nil, other} {
			was, err := api.Get(ctx, webhookConfiguration, metav1.GetOptions{})
			require.NoError(tr, err)
			for i := range was.Webhooks {
				was.Webhooks[i].ClientConfig.CABundle = wrong
			}
			_, err = api.Update(ctx, was, metav1.UpdateOptions{})
			require.NoError(tr, err)
			tr.AwaitRecovery("bundle", func(ctx context.Context) error {
				if now := tr.caBundle(ctx); now != right {
					return fmt.Errorf("the bundle is %q", now)
				}
				return nil
			})
			injectedBefore := tr.Pods.Snapshot().Injected
			tr.AwaitRecovery("pods", func(context.Context) error {
				if seen := tr.Pods.Snapshot(); seen.Injected < injectedBefore+5 {
					return fmt.Errorf("%s", seen)
				}
				return nil
			})
		}
	})
}

// caBundle returns the CA bundle of all webhooks of the configuration; empty if they differ.
func (tr *Trial) caBundle(ctx context.Context) string {
	tr.Helper()
	found, err := cluster.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, webhookConfiguration, metav1.GetOptions{})
	require.NoError(tr, err)
	bundle := string(found.Webhooks[0].ClientConfig.CABundle)
	for i := range found.Webhooks {
		if string(found.Webhooks[i].ClientConfig.CABundle) != bundle {
			return ""
		}
	}
	return bundle
}
