package admission

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// meshErrors is the metric that counts revisions with unreadable settings.
const meshErrors = "isthmus_mesh_settings_errors"

// TestMeshSettingsFollowIstio installs, changes, breaks and removes Istio's configuration.
func TestMeshSettingsFollowIstio(t *testing.T) {
	s := newNamespace(t, enabled)
	injectedSidecar := func() *corev1.Container {
		pod, err := s.dryRun(edgePod("edge"))
		require.NoError(t, err)
		require.NotNil(t, sidecar(pod))
		return sidecar(pod)
	}
	awaitTrustDomain := func(want string) {
		requireEventually(t, func(context.Context) error {
			if got := variable(injectedSidecar(), "TRUST_DOMAIN"); got != want {
				return fmt.Errorf("the trust domain is %q, want %q", got, want)
			}
			return nil
		})
	}
	awaitMeshErrors := func(want float64) {
		requireEventually(t, func(ctx context.Context) error {
			got, err := env.server.counter(ctx, meshErrors)
			if err == nil && got != want {
				err = fmt.Errorf("%s is %v, want %v", meshErrors, got, want)
			}
			return err
		})
	}
	defaultSidecar := injectedSidecar()

	// Istio is installed.
	mesh := createConfigMap(t, "istio", "mesh", "trustDomain: one.example\ndefaultConfig: {discoveryAddress: 'istiod.istio-system.svc:15012'}")
	injector := createConfigMap(t, "istio-sidecar-injector", "values", injectorValues("registry.example/istio", "1.30.2"))
	awaitTrustDomain("one.example")
	requireEventually(t, func(context.Context) error {
		if got := injectedSidecar().Image; got != "registry.example/istio/proxyv2:1.30.2" {
			return errors.New("the image is " + got)
		}
		return nil
	})
	assert.Equal(t, "cluster-one", variable(injectedSidecar(), "ISTIO_META_CLUSTER_ID"))

	// Its settings change.
	updateConfigMap(t, mesh, "mesh", "trustDomain: two.example")
	awaitTrustDomain("two.example")

	// Its settings become invalid: the last valid ones are used.
	updateConfigMap(t, mesh, "mesh", "trustDomain: [not, a, name]")
	awaitMeshErrors(1)
	assert.Equal(t, "two.example", variable(injectedSidecar(), "TRUST_DOMAIN"))
	updateConfigMap(t, mesh, "mesh", "trustDomain: three.example")
	awaitTrustDomain("three.example")
	awaitMeshErrors(0)
	updateConfigMap(t, injector, "values", "{")
	awaitMeshErrors(1)
	assert.Equal(t, "registry.example/istio/proxyv2:1.30.2", injectedSidecar().Image)
	assert.Equal(t, "three.example", variable(injectedSidecar(), "TRUST_DOMAIN"))
	updateConfigMap(t, injector, "values", injectorValues("registry.example/istio", "1.30.3"))
	awaitMeshErrors(0)
	assert.Equal(t, "registry.example/istio/proxyv2:1.30.3", injectedSidecar().Image)

	// Istio is removed: the documented defaults are used.
	for _, name := range []string{mesh, injector} {
		require.NoError(t, env.client.CoreV1().ConfigMaps(istioNamespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
	awaitTrustDomain(variable(defaultSidecar, "TRUST_DOMAIN"))
	requireEventually(t, func(context.Context) error {
		if got := injectedSidecar().Image; got != defaultSidecar.Image {
			return errors.New("the image is " + got)
		}
		return nil
	})
}

func injectorValues(hub, tag string) string {
	return fmt.Sprintf(`{"global": {"hub": %q, "tag": %q, "multiCluster": {"clusterName": "cluster-one"}, "proxy": {"image": "proxyv2"}}}`, hub, tag)
}

func createConfigMap(t *testing.T, name, key, value string) string {
	t.Helper()
	configMaps := env.client.CoreV1().ConfigMaps(istioNamespace)
	_, err := configMaps.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"istio.io/rev": "default"}}, Data: map[string]string{key: value},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = configMaps.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}) // gone when the test passed
	})
	return name
}

func updateConfigMap(t *testing.T, name, key, value string) {
	t.Helper()
	configMaps := env.client.CoreV1().ConfigMaps(istioNamespace)
	configMap, err := configMaps.Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	configMap.Data[key] = value
	_, err = configMaps.Update(t.Context(), configMap, metav1.UpdateOptions{})
	require.NoError(t, err)
}

func requireEventually(t *testing.T, check func(context.Context) error) {
	t.Helper()
	require.NoError(t, await(t.Context(), check))
}
