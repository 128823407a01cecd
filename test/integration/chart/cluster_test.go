package chart

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// cluster is a real API server.
type cluster struct {
	kubeconfig string
	config     *rest.Config
	client     kubernetes.Interface
}

// TestAgainstAPIServer contains all tests that need an API server: the one of KUBECONFIG,
// or one that test/tools/cluster starts. They run one after the other, since a cluster can
// have only one release.
func TestAgainstAPIServer(t *testing.T) {
	c := connect(t)
	t.Run("which pods are sent to the webhook", func(t *testing.T) { testMatching(t, c) })
	t.Run("the lifecycle of a release", func(t *testing.T) { testLifecycle(t, c) })
	t.Run("one Isthmus in a cluster", func(t *testing.T) { testSecondRelease(t, c) })
	t.Run("the permissions of the webhook", func(t *testing.T) { testPermissions(t, c) })
	t.Run("the programs of the Deployments", func(t *testing.T) { testServer(t, c) })
	t.Run("a certificate of cert-manager", func(t *testing.T) { testCertManager(t, c) })
}

func connect(t *testing.T) *cluster {
	t.Helper()
	p, err := controlplane.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
	config, err := p.Admin()
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return &cluster{p.Kubeconfig, config, client}
}

// namespace creates a namespace with the default service account, until the test ends.
// Without a controller manager its deletion never completes.
func (c *cluster) namespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	ctx := t.Context()
	_, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	c.account(t, name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("remove namespace %s: %v", name, err)
		}
	})
}

// account creates the default service account, which every pod needs, unless the
// controller manager has created it.
func (c *cluster) account(t *testing.T, namespace string) {
	t.Helper()
	_, err := c.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "default"},
	}, metav1.CreateOptions{})
	if err != nil {
		_, err = c.client.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{})
	}
	require.NoError(t, err)
}

// helm runs Helm against this cluster.
func (c *cluster) helm(arguments ...string) (string, error) {
	return helm(append(arguments, "--kubeconfig", c.kubeconfig)...)
}
