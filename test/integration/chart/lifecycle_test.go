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

// testLifecycle installs, upgrades and uninstalls the chart with Helm, while the test
// writes what the controller would write.
func testLifecycle(t *testing.T, c *cluster) {
	c.namespace(t, "life-first", nil)
	c.namespace(t, "life-second", nil)

	t.Run("without Istio's namespace the installation names it", func(t *testing.T) {
		_, err := c.helm("install", "first", chart, "--namespace", "life-first", "--set", "istio.namespace=no-mesh")
		assert.ErrorContains(t, err, `namespaces "no-mesh" not found`)
		_, err = c.helm("uninstall", "first", "--namespace", "life-first")
		require.NoError(t, err)
		assertGone(t, c)
	})

	c.namespace(t, "life-mesh", nil)
	install(t, c, "first", "life-first")

	t.Run("helm test names the webhook that cannot be reached", func(t *testing.T) {
		c.account(t, "default")
		err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
			_, err := c.helm("test", "first", "--namespace", "life-first", "--timeout", "1s")
			if err == nil {
				return false, errors.New("the test passed, and nothing was injected")
			}
			// Until the API server observes the configuration, the pod is created and pending.
			return strings.Contains(err.Error(), `failed calling webhook "pod.isthmus.dev"`), nil
		})
		assert.NoError(t, err)
	})

	bundle := certtest.NewAuthority(t).CertificatePEM
	t.Run("an upgrade keeps what the controller wrote", func(t *testing.T) {
		writeCA(t, c, bundle)
		upgrade(t, c, "--set", "replicaCount=3")
		assertCA(t, c, bundle, 5)
		// This upgrade changes the list that contains the caBundle.
		upgrade(t, c, "--set", "webhook.timeoutSeconds=7")
		assertCA(t, c, bundle, 7)
		upgrade(t, c, "--set", "webhook.excludedNamespaces={vault}")
		assertCA(t, c, bundle, 5)
	})

	t.Run("a rollback keeps what the controller wrote", func(t *testing.T) {
		_, err := c.helm("rollback", "first", "3", "--namespace", "life-first")
		require.NoError(t, err)
		assertCA(t, c, bundle, 7)
	})

	t.Run("a user's certificate replaces the CA, and back again", func(t *testing.T) {
		userCA := certtest.NewAuthority(t).CertificatePEM
		file := filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(file, userCA, 0o600))
		upgrade(t, c, "--set", "certificate.mode=existing", "--set", "certificate.existing.secretName=theirs",
			"--set-file", "certificate.existing.caBundle="+file)
		for name, client := range clientConfigs(t, c) {
			assert.Equal(t, string(userCA), string(client.CABundle), name)
		}
		_, err := c.client.CoreV1().Secrets("life-first").Get(t.Context(), "isthmus-webhook-ca", metav1.GetOptions{})
		assert.Error(t, err, "an unused CA is deleted")
		upgrade(t, c)
		for name, client := range clientConfigs(t, c) {
			assert.Empty(t, client.CABundle, "the controller writes the next one: %s", name)
		}
	})

	t.Run("uninstalling leaves nothing behind", func(t *testing.T) {
		writeCA(t, c, bundle)
		edgeSecretBefore, err := c.client.CoreV1().Secrets("life-second").Create(t.Context(), edgeSecret(), metav1.CreateOptions{})
		require.NoError(t, err)
		deletionOrder := watchDeletions(t, c, "life-first")
		_, err = c.helm("uninstall", "first", "--namespace", "life-first")
		require.NoError(t, err)
		assertGone(t, c)
		sent, service := deletionOrder()
		assert.Less(t, sent, service, "the webhooks are deleted before the Service")
		now, err := c.client.CoreV1().Secrets("life-second").Get(t.Context(), edgeSecretBefore.Name, metav1.GetOptions{})
		require.NoError(t, err, "an edge keeps its Secret")
		assert.Equal(t, edgeSecretBefore.UID, now.UID)
		assert.Equal(t, edgeSecretBefore.Data, now.Data)
	})
}

// install installs the chart for the mesh in namespace life-mesh.
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

func validatingConfiguration(t *testing.T, c *cluster) *admissionv1.ValidatingWebhookConfiguration {
	t.Helper()
	found, err := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "isthmus-injector", metav1.GetOptions{})
	require.NoError(t, err)
	require.Len(t, found.Webhooks, 3)
	return found
}

// clientConfigs returns the client configuration of every webhook in both configurations.
func clientConfigs(t *testing.T, c *cluster) map[string]admissionv1.WebhookClientConfig {
	t.Helper()
	all := map[string]admissionv1.WebhookClientConfig{}
	for _, hook := range configuration(t, c).Webhooks {
		all[hook.Name] = hook.ClientConfig
	}
	for _, hook := range validatingConfiguration(t, c).Webhooks {
		all[hook.Name] = hook.ClientConfig
	}
	require.Len(t, all, 5)
	return all
}

// writeCA writes what the controller writes: the CA to its Secret, and the caBundle to
// every webhook.
func writeCA(t *testing.T, c *cluster, bundle []byte) {
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

func assertCA(t *testing.T, c *cluster, bundle []byte, timeout int32) {
	t.Helper()
	for _, hook := range configuration(t, c).Webhooks {
		assert.Equal(t, timeout, *hook.TimeoutSeconds, "the upgrade reached %s", hook.Name)
	}
	for name, client := range clientConfigs(t, c) {
		assert.Equal(t, string(bundle), string(client.CABundle), name)
	}
	secret, err := c.client.CoreV1().Secrets("life-first").Get(t.Context(), "isthmus-webhook-ca", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, string(bundle), string(secret.Data["tls.crt"]))
}

// edgeSecret returns a Secret like those that the controller writes for an edge.
func edgeSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-certs", Labels: map[string]string{policy.ManagedByLabel: policy.ManagedBy}},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{"tls.crt": []byte("a"), "tls.key": []byte("b")},
	}
}

// assertGone checks that no object of the chart is left, by kind and label.
func assertGone(t *testing.T, c *cluster) {
	t.Helper()
	ctx, isthmusObjects := t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=isthmus"}
	assertNone := func(resource string, count int, err error) {
		assert.NoError(t, err, resource)
		assert.Zero(t, count, resource)
	}
	configurations, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, isthmusObjects)
	assertNone("webhook configurations", len(configurations.Items), err)
	validatingConfigurations, err := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().List(ctx, isthmusObjects)
	assertNone("validating webhook configurations", len(validatingConfigurations.Items), err)
	clusterRoles, err := c.client.RbacV1().ClusterRoles().List(ctx, isthmusObjects)
	assertNone("cluster roles", len(clusterRoles.Items), err)
	clusterBindings, err := c.client.RbacV1().ClusterRoleBindings().List(ctx, isthmusObjects)
	assertNone("cluster role bindings", len(clusterBindings.Items), err)
	roles, err := c.client.RbacV1().Roles("").List(ctx, isthmusObjects)
	assertNone("roles", len(roles.Items), err)
	bindings, err := c.client.RbacV1().RoleBindings("").List(ctx, isthmusObjects)
	assertNone("role bindings", len(bindings.Items), err)
	secrets, err := c.client.CoreV1().Secrets("").List(ctx, isthmusObjects)
	assertNone("secrets", len(secrets.Items), err)
	configs, err := c.client.CoreV1().ConfigMaps("").List(ctx, isthmusObjects)
	assertNone("config maps", len(configs.Items), err)
	services, err := c.client.CoreV1().Services("").List(ctx, isthmusObjects)
	assertNone("services", len(services.Items), err)
	accounts, err := c.client.CoreV1().ServiceAccounts("").List(ctx, isthmusObjects)
	assertNone("service accounts", len(accounts.Items), err)
	deployments, err := c.client.AppsV1().Deployments("").List(ctx, isthmusObjects)
	assertNone("deployments", len(deployments.Items), err)
	budgets, err := c.client.PolicyV1().PodDisruptionBudgets("").List(ctx, isthmusObjects)
	assertNone("disruption budgets", len(budgets.Items), err)
	policies, err := c.client.NetworkingV1().NetworkPolicies("").List(ctx, isthmusObjects)
	assertNone("network policies", len(policies.Items), err)
	admissionPolicies, err := c.client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, isthmusObjects)
	assertNone("admission policies", len(admissionPolicies.Items), err)
	admissionPolicyBindings, err := c.client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(ctx, isthmusObjects)
	assertNone("admission policy bindings", len(admissionPolicyBindings.Items), err)
}
