package chart

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// testLife installs, upgrades and uninstalls the chart with a real Helm, while
// the test writes what the controller would write.
func testLife(t *testing.T, c *cluster) {
	c.namespace(t, "life-first", nil)
	c.namespace(t, "life-second", nil)

	t.Run("without Istio's namespace it says what is missing", func(t *testing.T) {
		_, err := c.helm("install", "first", chart, "--namespace", "life-first", "--set", "istio.namespace=no-mesh")
		assert.ErrorContains(t, err, `namespaces "no-mesh" not found`)
		_, err = c.helm("uninstall", "first", "--namespace", "life-first")
		require.NoError(t, err)
		assertGone(t, c)
	})

	c.namespace(t, "life-mesh", nil)
	install(t, c, "first", "life-first")

	t.Run("the test names the webhook that cannot be reached", func(t *testing.T) {
		c.account(t, "default")
		err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
			_, err := c.helm("test", "first", "--namespace", "life-first", "--timeout", "1s")
			if err == nil {
				return false, errors.New("the test passed, and nothing was injected")
			}
			// Until the API server knows the configuration, the pod waits for a node.
			return strings.Contains(err.Error(), `failed calling webhook "pod.isthmus.dev"`), nil
		})
		assert.NoError(t, err)
	})

	bundle := certtest.NewAuthority(t).CertificatePEM
	t.Run("an upgrade keeps what the controller wrote", func(t *testing.T) {
		write(t, c, bundle)
		upgrade(t, c, "--set", "replicaCount=3")
		assertWritten(t, c, bundle, 5)
		// This one changes the very list that holds the caBundle.
		upgrade(t, c, "--set", "webhook.timeoutSeconds=7")
		assertWritten(t, c, bundle, 7)
		upgrade(t, c, "--set", "webhook.excludedNamespaces={vault}")
		assertWritten(t, c, bundle, 5)
	})

	t.Run("so does a rollback", func(t *testing.T) {
		_, err := c.helm("rollback", "first", "3", "--namespace", "life-first")
		require.NoError(t, err)
		assertWritten(t, c, bundle, 7)
	})

	t.Run("a certificate of the user's replaces it, and the way back", func(t *testing.T) {
		theirs := certtest.NewAuthority(t).CertificatePEM
		file := filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(file, theirs, 0o600))
		upgrade(t, c, "--set", "certificate.mode=existing", "--set", "certificate.existing.secretName=theirs",
			"--set-file", "certificate.existing.caBundle="+file)
		for name, client := range clients(t, c) {
			assert.Equal(t, string(theirs), string(client.CABundle), name)
		}
		_, err := c.client.CoreV1().Secrets("life-first").Get(t.Context(), "isthmus-webhook-ca", metav1.GetOptions{})
		assert.Error(t, err, "a CA that nobody needs is not kept")
		upgrade(t, c)
		for name, client := range clients(t, c) {
			assert.Empty(t, client.CABundle, "the controller writes the next one: %s", name)
		}
	})

	t.Run("uninstalling leaves nothing behind", func(t *testing.T) {
		write(t, c, bundle)
		kept, err := c.client.CoreV1().Secrets("life-second").Create(t.Context(), edgeSecret(), metav1.CreateOptions{})
		require.NoError(t, err)
		order := deletions(t, c, "life-first")
		_, err = c.helm("uninstall", "first", "--namespace", "life-first")
		require.NoError(t, err)
		assertGone(t, c)
		sent, service := order()
		assert.Less(t, sent, service, "no pod is sent any more when the Service goes")
		now, err := c.client.CoreV1().Secrets("life-second").Get(t.Context(), kept.Name, metav1.GetOptions{})
		require.NoError(t, err, "an edge goes on with the Secret that it has")
		assert.Equal(t, kept.UID, now.UID)
		assert.Equal(t, kept.Data, now.Data)
	})
}

// install installs the chart as a release, for the mesh in life-mesh.
func install(t *testing.T, c *cluster, release, namespace string) {
	t.Helper()
	_, err := c.helm("install", release, chart, "--namespace", namespace, "--set", "istio.namespace=life-mesh")
	require.NoError(t, err)
}

func upgrade(t *testing.T, c *cluster, values ...string) {
	t.Helper()
	arguments := []string{"upgrade", "first", chart, "--namespace", "life-first", "--set", "istio.namespace=life-mesh"}
	_, err := c.helm(append(arguments, values...)...)
	require.NoError(t, err)
}

func configuration(t *testing.T, c *cluster) *admissionv1.MutatingWebhookConfiguration {
	t.Helper()
	found, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "isthmus-injector", metav1.GetOptions{})
	require.NoError(t, err)
	require.Len(t, found.Webhooks, 2)
	return found
}

func validating(t *testing.T, c *cluster) *admissionv1.ValidatingWebhookConfiguration {
	t.Helper()
	found, err := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "isthmus-injector", metav1.GetOptions{})
	require.NoError(t, err)
	require.Len(t, found.Webhooks, 3)
	return found
}

// clients say how the API server calls each webhook of both configurations.
func clients(t *testing.T, c *cluster) map[string]admissionv1.WebhookClientConfig {
	t.Helper()
	all := map[string]admissionv1.WebhookClientConfig{}
	for _, hook := range configuration(t, c).Webhooks {
		all[hook.Name] = hook.ClientConfig
	}
	for _, hook := range validating(t, c).Webhooks {
		all[hook.Name] = hook.ClientConfig
	}
	require.Len(t, all, 5)
	return all
}

// write writes what the controller writes: the CA into its Secret, the caBundle
// into every webhook.
func write(t *testing.T, c *cluster, bundle []byte) {
	t.Helper()
	encoded := base64.StdEncoding.EncodeToString(bundle)
	_, err := c.client.CoreV1().Secrets("life-first").Patch(t.Context(), "isthmus-webhook-ca", types.MergePatchType,
		fmt.Appendf(nil, `{"data":{"tls.crt":%q}}`, encoded), metav1.PatchOptions{})
	require.NoError(t, err)
	_, err = c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), "isthmus-injector", types.JSONPatchType,
		fmt.Appendf(nil, `[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":%q},
			{"op":"add","path":"/webhooks/1/clientConfig/caBundle","value":%[1]q}]`, encoded), metav1.PatchOptions{})
	require.NoError(t, err)
	_, err = c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(t.Context(), "isthmus-injector", types.JSONPatchType,
		fmt.Appendf(nil, `[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":%q},
			{"op":"add","path":"/webhooks/1/clientConfig/caBundle","value":%[1]q},
			{"op":"add","path":"/webhooks/2/clientConfig/caBundle","value":%[1]q}]`, encoded), metav1.PatchOptions{})
	require.NoError(t, err)
}

func assertWritten(t *testing.T, c *cluster, bundle []byte, timeout int32) {
	t.Helper()
	for _, hook := range configuration(t, c).Webhooks {
		assert.Equal(t, timeout, *hook.TimeoutSeconds, "the upgrade reached %s", hook.Name)
	}
	for name, client := range clients(t, c) {
		assert.Equal(t, string(bundle), string(client.CABundle), name)
	}
	secret, err := c.client.CoreV1().Secrets("life-first").Get(t.Context(), "isthmus-webhook-ca", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, string(bundle), string(secret.Data["tls.crt"]))
}

// edgeSecret is one as the controller keeps it in an edge's namespace.
func edgeSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-certs", Labels: map[string]string{policy.ManagedByLabel: policy.ManagedBy}},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{"tls.crt": []byte("a"), "tls.key": []byte("b")},
	}
}

// assertGone looks for everything that the chart creates, by kind and label.
func assertGone(t *testing.T, c *cluster) {
	t.Helper()
	ctx, ours := t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=isthmus"}
	list := func(what string, count int, err error) {
		assert.NoError(t, err, what)
		assert.Zero(t, count, what)
	}
	configurations, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, ours)
	list("webhook configurations", len(configurations.Items), err)
	validations, err := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().List(ctx, ours)
	list("validating webhook configurations", len(validations.Items), err)
	clusterRoles, err := c.client.RbacV1().ClusterRoles().List(ctx, ours)
	list("cluster roles", len(clusterRoles.Items), err)
	clusterBindings, err := c.client.RbacV1().ClusterRoleBindings().List(ctx, ours)
	list("cluster role bindings", len(clusterBindings.Items), err)
	roles, err := c.client.RbacV1().Roles("").List(ctx, ours)
	list("roles", len(roles.Items), err)
	bindings, err := c.client.RbacV1().RoleBindings("").List(ctx, ours)
	list("role bindings", len(bindings.Items), err)
	secrets, err := c.client.CoreV1().Secrets("").List(ctx, ours)
	list("secrets", len(secrets.Items), err)
	configs, err := c.client.CoreV1().ConfigMaps("").List(ctx, ours)
	list("config maps", len(configs.Items), err)
	services, err := c.client.CoreV1().Services("").List(ctx, ours)
	list("services", len(services.Items), err)
	accounts, err := c.client.CoreV1().ServiceAccounts("").List(ctx, ours)
	list("service accounts", len(accounts.Items), err)
	deployments, err := c.client.AppsV1().Deployments("").List(ctx, ours)
	list("deployments", len(deployments.Items), err)
	budgets, err := c.client.PolicyV1().PodDisruptionBudgets("").List(ctx, ours)
	list("disruption budgets", len(budgets.Items), err)
	policies, err := c.client.NetworkingV1().NetworkPolicies("").List(ctx, ours)
	list("network policies", len(policies.Items), err)
	fences, err := c.client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, ours)
	list("admission policies", len(fences.Items), err)
	fenceBindings, err := c.client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(ctx, ours)
	list("admission policy bindings", len(fenceBindings.Items), err)
}
