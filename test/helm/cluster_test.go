package helm

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is a real API server.
type cluster struct {
	kubeconfig string
	config     *rest.Config
	client     kubernetes.Interface
}

// TestAgainstAPIServer holds all that needs an API server: the one of
// KUBECONFIG, else one that the harness starts. Its parts run one after the
// other, since a cluster holds one release.
func TestAgainstAPIServer(t *testing.T) {
	c := connect(t)
	t.Run("which pods are sent", func(t *testing.T) { testMatching(t, c) })
	t.Run("the life of a release", func(t *testing.T) { testLife(t, c) })
	t.Run("what the webhook may do", func(t *testing.T) { testPermissions(t, c) })
	t.Run("the program in the Deployment", func(t *testing.T) { testServer(t, c) })
	t.Run("a certificate of cert-manager", func(t *testing.T) { testCertManager(t, c) })
}

func connect(t *testing.T) *cluster {
	t.Helper()
	kubeconfig := os.Getenv("KUBECONFIG")
	if kubeconfig == "" {
		kubeconfig = start(t)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	require.NoError(t, err)
	config.QPS, config.Burst = 500, 500
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return &cluster{kubeconfig, config, client}
}

// start starts the harness and returns the kubeconfig of its control plane. It
// ends when its standard input closes, even if this process is killed.
func start(t *testing.T) string {
	t.Helper()
	harness := exec.Command("go", "-C", "../cluster", "run", ".", "up")
	input, err := harness.StdinPipe()
	require.NoError(t, err)
	output, err := harness.StdoutPipe()
	require.NoError(t, err)
	harness.Stderr = os.Stderr
	require.NoError(t, harness.Start())
	t.Cleanup(func() {
		_ = input.Close()
		_, _ = io.Copy(io.Discard, output)
		if err := harness.Wait(); err != nil {
			t.Errorf("end the control plane: %v", err)
		}
	})
	var endpoint struct {
		Kubeconfig string `json:"kubeconfig"`
	}
	require.NoError(t, json.NewDecoder(output).Decode(&endpoint), "the control plane did not start; it says why above")
	return endpoint.Kubeconfig
}

// namespace creates a namespace and what a pod in it needs, and removes it in
// the end. Without a controller manager it stays, emptied.
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

// account creates the default service account, which no pod can do without,
// where the controller manager has not done so.
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
