package chart

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// testAlone installs a second Isthmus in all ways that Helm has: each is refused
// before anything is made, in words that name the first and the way out, and the
// way out is one.
func testAlone(t *testing.T, c *cluster) {
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
		"installed":                          {"install", "second", "--namespace", "alone-second"},
		"of the same name":                   {"install", "first", "--namespace", "alone-second"},
		"in the same namespace":              {"install", "second", "--namespace", "alone-first"},
		"upgraded or installed":              {"upgrade", "--install", "second", "--namespace", "alone-second"},
		"undone where it fails":              {"install", "second", "--namespace", "alone-second", "--atomic"},
		"that takes whatever there is":       {"install", "second", "--namespace", "alone-second", "--take-ownership"},
		"in the place of an uninstalled one": {"install", "second", "--namespace", "alone-second", "--replace"},
		"in a namespace that it may make":    {"install", "second", "--namespace", "alone-third", "--create-namespace"},
		"only tried, by the server itself":   {"install", "second", "--namespace", "alone-second", "--dry-run=server"},
	} {
		t.Run("a second one, "+name, func(t *testing.T) {
			_, err := run(arguments...)
			assert.ErrorContains(t, err, "a cluster holds one Isthmus, and release first in namespace alone-first is there")
			assert.ErrorContains(t, err, "uninstall it first (helm uninstall first -n alone-first)")
			for namespace, release := range map[string]string{"alone-first": "second", "alone-second": "second"} {
				_, err = c.helm("uninstall", release, "--namespace", namespace)
				assert.ErrorContains(t, err, "release: not found", "there is none to uninstall")
			}
			assertNothingOf(t, c, "alone-second")
			_, err = c.client.CoreV1().Namespaces().Get(t.Context(), "alone-third", metav1.GetOptions{})
			assert.Error(t, err, "not even its namespace")
			assert.Equal(t, first.UID, configuration(t, c).UID)
		})
	}

	t.Run("rendering alone knows no cluster", func(t *testing.T) {
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

	t.Run("one that no release owns", func(t *testing.T) {
		_, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), first.Name, types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"meta.helm.sh/release-name":null,"meta.helm.sh/release-namespace":null}}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		_, err = run("install", "second", "--namespace", "alone-second")
		assert.ErrorContains(t, err, "there is one that no release of Helm owns (MutatingWebhookConfiguration isthmus-injector)")
		assertNothingOf(t, c, "alone-second")
	})

	t.Run("what is left of one is taken over as the message says", func(t *testing.T) {
		_, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), first.Name, types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"meta.helm.sh/release-name":"second","meta.helm.sh/release-namespace":"alone-second"}}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		_, err = run("install", "second", "--namespace", "alone-second", "--take-ownership")
		require.NoError(t, err)
		now := configuration(t, c)
		assert.Equal(t, first.UID, now.UID)
		assert.Equal(t, "alone-second", now.Webhooks[0].ClientConfig.Service.Namespace)

		_, err = run("upgrade", "first", "--namespace", "alone-first")
		assert.ErrorContains(t, err, "release second in namespace alone-second is there", "the old one does not take it back")
		_, err = c.helm("uninstall", "second", "--namespace", "alone-second")
		require.NoError(t, err)
		_, err = c.helm("uninstall", "first", "--namespace", "alone-first")
		require.NoError(t, err)
		assertGone(t, c)
	})
}

// assertNothingOf judges a refused release: Helm keeps no record of it in the
// namespace, and nothing of it was created.
func assertNothingOf(t *testing.T, c *cluster, namespace string) {
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
