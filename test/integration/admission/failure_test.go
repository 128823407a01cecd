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

// The server cannot answer a review of an update, which the chart's
// configuration never sends: it stands for every error of the server's own. The
// policy of the configuration decides then.
func TestFailurePolicyDecidesOnInternalError(t *testing.T) {
	bundle, err := world.caBundle(t.Context())
	require.NoError(t, err)
	s := newSpace(t)
	configure(t, "a-isthmus-test-failing", s, admissionregistrationv1.MutatingWebhook{
		ClientConfig:  admissionregistrationv1.WebhookClientConfig{URL: ptr.To(world.door.url("/inject/pod")), CABundle: bundle},
		Rules:         podRules(admissionregistrationv1.Update),
		FailurePolicy: ptr.To(admissionregistrationv1.Fail),
	})
	pod, err := s.create(edgePod("edge"))
	require.NoError(t, err)
	update := func() error {
		_, err := s.client.CoreV1().Pods(s.name).Update(t.Context(), pod, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}

	awaitAsked(t, func() bool { return update() != nil })
	assert.EqualError(t, update(), `Internal error occurred: failed calling webhook "a-isthmus-test-failing.isthmus.dev": failed to call webhook: `+
		"an error on the server (\"internal-error: review of UPDATE pods/: the webhook configuration must send CREATE of pods only\") has prevented the request from succeeding")

	reconfigure(t, "a-isthmus-test-failing", func(w *admissionregistrationv1.MutatingWebhook) {
		w.FailurePolicy = ptr.To(admissionregistrationv1.Ignore)
	})
	awaitAsked(t, func() bool { return update() == nil })
}

// podRules are those of a webhook that is called for pods.
func podRules(operation admissionregistrationv1.OperationType) []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{operation},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{corev1.ResourcePods.String()}},
	}}
}
