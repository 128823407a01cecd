package serving

import (
	"encoding/json"
	"strconv"
	"sync/atomic"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

const (
	testNamespace     = "isthmus-system"
	testSecret        = "isthmus-webhook-ca"
	testConfiguration = "isthmus-webhook"
)

// cluster is a fake API server that, unlike the fake client, refuses a write whose
// resourceVersion is not the current one.
type cluster struct {
	*fake.Clientset
	t         testing.TB
	versions  atomic.Int64
	conflicts atomic.Int64
	writes    atomic.Int64
}

// newCluster returns a cluster with the objects that the chart installs: an empty
// Secret, and two configurations of two webhooks each without a caBundle.
func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{Clientset: fake.NewClientset(newSecret(), newMutatingConfiguration(), newValidatingConfiguration()), t: t}
	c.PrependReactor("update", "secrets", c.update)
	c.PrependReactor("update", "mutatingwebhookconfigurations", c.update)
	c.PrependReactor("patch", "mutatingwebhookconfigurations", c.patch)
	c.PrependReactor("update", "validatingwebhookconfigurations", c.update)
	c.PrependReactor("patch", "validatingwebhookconfigurations", c.patch)
	return c
}

func newSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: testNamespace, Name: testSecret, ResourceVersion: "1",
			Labels: map[string]string{"app.kubernetes.io/managed-by": "Helm"}, Annotations: map[string]string{"keep": "me"},
		},
		Type: corev1.SecretTypeOpaque,
	}
}

func newMutatingConfiguration() *admissionregistrationv1.MutatingWebhookConfiguration {
	url := "https://127.0.0.1:1/"
	return &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: testConfiguration, ResourceVersion: "1"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{
			{Name: "namespace.isthmus.dev", ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url}},
			{Name: "pod.isthmus.dev", ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url}},
		},
	}
}

func newValidatingConfiguration() *admissionregistrationv1.ValidatingWebhookConfiguration {
	url := "https://127.0.0.1:1/"
	return &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: testConfiguration, ResourceVersion: "1"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{
			{Name: "template.isthmus.dev", ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url}},
			{Name: "namespaces.isthmus.dev", ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url}},
		},
	}
}

func (c *cluster) update(action clienttesting.Action) (bool, runtime.Object, error) {
	updated := action.(clienttesting.UpdateAction).GetObject()
	given := updated.(metav1.Object)
	current, err := c.Tracker().Get(action.GetResource(), action.GetNamespace(), given.GetName())
	if err != nil {
		return true, nil, err
	}
	if given.GetResourceVersion() != current.(metav1.Object).GetResourceVersion() {
		c.conflicts.Add(1)
		return true, nil, apierrors.NewConflict(action.GetResource().GroupResource(), given.GetName(), nil)
	}
	return true, updated, c.save(action, updated)
}

func (c *cluster) patch(action clienttesting.Action) (bool, runtime.Object, error) {
	given := action.(clienttesting.PatchAction)
	current, err := c.Tracker().Get(action.GetResource(), "", given.GetName())
	if err != nil {
		return true, nil, err
	}
	before, err := json.Marshal(current)
	require.NoError(c.t, err)
	operations, err := jsonpatch.DecodePatch(given.GetPatch())
	require.NoError(c.t, err)
	after, err := operations.Apply(before)
	if err != nil {
		c.conflicts.Add(1)
		return true, nil, apierrors.NewGenericServerResponse(422, "patch", action.GetResource().GroupResource(), given.GetName(), err.Error(), 0, false)
	}
	patched := current.DeepCopyObject()
	require.NoError(c.t, json.Unmarshal(after, patched))
	return true, patched, c.save(action, patched)
}

func (c *cluster) save(action clienttesting.Action, saved runtime.Object) error {
	c.writes.Add(1)
	saved.(metav1.Object).SetResourceVersion(strconv.FormatInt(c.versions.Add(1)+1, 10))
	return c.Tracker().Update(action.GetResource(), saved, action.GetNamespace())
}

func (c *cluster) secret() *corev1.Secret {
	c.t.Helper()
	secret, err := c.CoreV1().Secrets(testNamespace).Get(c.t.Context(), testSecret, metav1.GetOptions{})
	require.NoError(c.t, err)
	return secret
}

// editSecret edits the Secret as a user does, and retries on a conflict.
func (c *cluster) editSecret(edit func(*corev1.Secret)) {
	c.t.Helper()
	for {
		secret := c.secret()
		edit(secret)
		_, err := c.CoreV1().Secrets(testNamespace).Update(c.t.Context(), secret, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			continue
		}
		require.NoError(c.t, err)
		return
	}
}

func (c *cluster) mutatingConfiguration() *admissionregistrationv1.MutatingWebhookConfiguration {
	c.t.Helper()
	configuration, err := c.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(c.t.Context(), testConfiguration, metav1.GetOptions{})
	require.NoError(c.t, err)
	return configuration
}

func (c *cluster) validatingConfiguration() *admissionregistrationv1.ValidatingWebhookConfiguration {
	c.t.Helper()
	configuration, err := c.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(c.t.Context(), testConfiguration, metav1.GetOptions{})
	require.NoError(c.t, err)
	return configuration
}

func (c *cluster) editValidatingConfiguration(edit func(*admissionregistrationv1.ValidatingWebhookConfiguration)) {
	c.t.Helper()
	configuration := c.validatingConfiguration()
	edit(configuration)
	_, err := c.AdmissionregistrationV1().ValidatingWebhookConfigurations().Update(c.t.Context(), configuration, metav1.UpdateOptions{})
	require.NoError(c.t, err)
}

func (c *cluster) editMutatingConfiguration(edit func(*admissionregistrationv1.MutatingWebhookConfiguration)) {
	c.t.Helper()
	for {
		configuration := c.mutatingConfiguration()
		edit(configuration)
		_, err := c.AdmissionregistrationV1().MutatingWebhookConfigurations().Update(c.t.Context(), configuration, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			continue
		}
		require.NoError(c.t, err)
		return
	}
}
