package admission

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// The server cannot answer a review of an update, which the chart's configuration never
// sends. For this and every other internal error the failure policy of the configuration
// decides.
func TestFailurePolicyDecidesOnInternalError(t *testing.T) {
	bundle, err := env.caBundle(t.Context())
	require.NoError(t, err)
	s := newNamespace(t)
	installWebhook(t, "a-isthmus-test-failing", s, admissionregistrationv1.MutatingWebhook{
		ClientConfig:  admissionregistrationv1.WebhookClientConfig{URL: ptr.To(env.service.url("/inject/pod")), CABundle: bundle},
		Rules:         podRules(admissionregistrationv1.Update),
		FailurePolicy: ptr.To(admissionregistrationv1.Fail),
	})
	pod, err := s.create(edgePod("edge"))
	require.NoError(t, err)
	update := func() error {
		_, err := s.client.CoreV1().Pods(s.name).Update(t.Context(), pod, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}

	awaitConfiguration(t, func() bool { return update() != nil })
	assert.EqualError(t, update(), `Internal error occurred: failed calling webhook "a-isthmus-test-failing.isthmus.dev": failed to call webhook: `+
		"an error on the server (\"internal-error: review of UPDATE pods/: the webhook configuration must send CREATE of pods only\") has prevented the request from succeeding")

	updateWebhook(t, "a-isthmus-test-failing", func(w *admissionregistrationv1.MutatingWebhook) {
		w.FailurePolicy = ptr.To(admissionregistrationv1.Ignore)
	})
	awaitConfiguration(t, func() bool { return update() == nil })
}

// podRules returns the rules of a webhook that is called for an operation on pods.
func podRules(operation admissionregistrationv1.OperationType) []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{operation},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{corev1.ResourcePods.String()}},
	}}
}
