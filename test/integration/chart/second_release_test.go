package chart

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// testSecondRelease installs a second Isthmus in every way that Helm supports. Each is
// refused before anything is created, with an error that names the first release and how
// to replace it, which works.
func testSecondRelease(t *testing.T, c *cluster) {
	for _, name := range []string{"alone-first", "alone-second", "alone-mesh"} {
		c.namespace(t, name, nil)
	}
	run := func(arguments ...string) (string, error) {
		return c.helm(append(arguments, chart, "--set", "istio.namespace=alone-mesh")...)
	}
	_, err := run("install", "first", "--namespace", "alone-first")
	require.NoError(t, err)
	first := configuration(t, c)

	for name, arguments := range map[string][]string{
		"installed":                        {"install", "second", "--namespace", "alone-second"},
		"of the same name":                 {"install", "first", "--namespace", "alone-second"},
		"in the same namespace":            {"install", "second", "--namespace", "alone-first"},
		"upgraded or installed":            {"upgrade", "--install", "second", "--namespace", "alone-second"},
		"rolled back on failure":           {"install", "second", "--namespace", "alone-second", "--atomic"},
		"that takes ownership":             {"install", "second", "--namespace", "alone-second", "--take-ownership"},
		"that replaces an uninstalled one": {"install", "second", "--namespace", "alone-second", "--replace"},
		"in a namespace that it creates":   {"install", "second", "--namespace", "alone-third", "--create-namespace"},
		"as a server-side dry run":         {"install", "second", "--namespace", "alone-second", "--dry-run=server"},
	} {
		t.Run("a second one, "+name, func(t *testing.T) {
			_, err := run(arguments...)
			assert.ErrorContains(t, err, "a cluster holds one Isthmus, and release first in namespace alone-first is there")
			assert.ErrorContains(t, err, "uninstall it first (helm uninstall first -n alone-first)")
			for namespace, release := range map[string]string{"alone-first": "second", "alone-second": "second"} {
				_, err = c.helm("uninstall", release, "--namespace", namespace)
				assert.ErrorContains(t, err, "release: not found", "there is no release to uninstall")
			}
			assertNothingCreated(t, c, "alone-second")
			_, err = c.client.CoreV1().Namespaces().Get(t.Context(), "alone-third", metav1.GetOptions{})
			assert.Error(t, err, "its namespace is not created")
			assert.Equal(t, first.UID, configuration(t, c).UID)
		})
	}

	t.Run("helm template does not look up the first release", func(t *testing.T) {
		rendered, err := run("template", "second", "--namespace", "alone-second", "--kube-version", testedVersion)
		require.NoError(t, err)
		count := 0
		for _, object := range parse(t, rendered) {
			if object.GetKind() == first.Kind || object.GetName() == first.Name {
				count++
			}
		}
		assert.Equal(t, 2, count, "one configuration of each kind")
	})

	t.Run("a configuration without a release is named", func(t *testing.T) {
		_, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), first.Name, types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"meta.helm.sh/release-name":null,"meta.helm.sh/release-namespace":null}}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		_, err = run("install", "second", "--namespace", "alone-second")
		assert.ErrorContains(t, err, "there is one that no release of Helm owns (MutatingWebhookConfiguration isthmus-injector)")
		assertNothingCreated(t, c, "alone-second")
	})

	t.Run("a leftover configuration is taken over as the error says", func(t *testing.T) {
		_, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), first.Name, types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"meta.helm.sh/release-name":"second","meta.helm.sh/release-namespace":"alone-second"}}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		_, err = run("install", "second", "--namespace", "alone-second", "--take-ownership")
		require.NoError(t, err)
		now := configuration(t, c)
		assert.Equal(t, first.UID, now.UID)
		assert.Equal(t, "alone-second", now.Webhooks[0].ClientConfig.Service.Namespace)

		_, err = run("upgrade", "first", "--namespace", "alone-first")
		assert.ErrorContains(t, err, "release second in namespace alone-second is there", "the first release does not take it back")
		_, err = c.helm("uninstall", "second", "--namespace", "alone-second")
		require.NoError(t, err)
		_, err = c.helm("uninstall", "first", "--namespace", "alone-first")
		require.NoError(t, err)
		assertGone(t, c)
	})
}

// assertNothingCreated checks a refused release: Helm stores no release in the namespace,
// and none of its objects exist.
func assertNothingCreated(t *testing.T, c *cluster, namespace string) {
	t.Helper()
	secrets, err := c.client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, secrets.Items, "secrets")
	accounts, err := c.client.CoreV1().ServiceAccounts(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=isthmus"})
	require.NoError(t, err)
	assert.Empty(t, accounts.Items, "accounts")
	roles, err := c.client.RbacV1().ClusterRoles().List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=second"})
	require.NoError(t, err)
	assert.Empty(t, roles.Items, "roles")
}
