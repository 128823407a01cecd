package admission

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// installWebhook installs another webhook, for the pods of one namespace.
func installWebhook(t *testing.T, name string, s *testNamespace, webhook admissionregistrationv1.MutatingWebhook) {
	t.Helper()
	webhook.Name = name + ".isthmus.dev"
	webhook.AdmissionReviewVersions = []string{"v1"}
	webhook.SideEffects = ptr.To(admissionregistrationv1.SideEffectClassNone)
	webhook.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": s.name}}
	configurations := env.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err := configurations.Create(t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: []admissionregistrationv1.MutatingWebhook{webhook},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, configurations.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}))
	})
}

// updateWebhook changes a webhook that installWebhook installed.
func updateWebhook(t *testing.T, name string, edit func(*admissionregistrationv1.MutatingWebhook)) {
	t.Helper()
	configurations := env.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	configuration, err := configurations.Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	edit(&configuration.Webhooks[0])
	_, err = configurations.Update(t.Context(), configuration, metav1.UpdateOptions{})
	require.NoError(t, err)
}

// awaitConfiguration waits until the API server has observed a change of a configuration,
// which it does by a watch.
func awaitConfiguration(t *testing.T, observed func() bool) {
	t.Helper()
	require.NoError(t, await(t.Context(), func(context.Context) error {
		if observed() {
			return nil
		}
		return errors.New("the API server has not observed the configuration yet")
	}))
}
