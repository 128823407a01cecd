package admission

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Uninstalling deletes only the chart's objects, so none of the others may refuse pods.
func TestUninstallLeavesNothingThatStopsPods(t *testing.T) {
	s := newNamespace(t, enabled)
	require.NoError(t, env.stopServer(t.Context()))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, name := range []string{releaseNamespace, istioNamespace, excludedNamespace} {
			require.NoError(t, awaitGone(ctx, name))
		}
		require.NoError(t, env.install(ctx))
		require.NoError(t, env.startServer(ctx))
	})

	require.NoError(t, env.uninstall(t.Context()))

	configurations, err := env.client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, configuration := range configurations.Items {
		assert.NotContains(t, configuration.Name, "isthmus")
	}
	validations, err := env.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, configuration := range validations.Items {
		assert.NotContains(t, configuration.Name, "isthmus")
	}
	roles, err := env.client.RbacV1().ClusterRoles().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, role := range roles.Items {
		assert.False(t, strings.HasPrefix(role.Name, "isthmus"), role.Name)
	}
	awaitConfiguration(t, func() bool {
		pod, err := s.dryRun(edgePod("edge"))
		return err == nil && !isInjected(pod)
	})
}

// awaitGone waits until a namespace that is being deleted does not exist any longer.
func awaitGone(ctx context.Context, name string) error {
	return await(ctx, func(ctx context.Context) error {
		namespace, err := env.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if err == nil && namespace.DeletionTimestamp != nil {
			return errors.New("namespace " + name + " still exists")
		}
		return client.IgnoreNotFound(err)
	})
}
