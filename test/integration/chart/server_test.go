package chart

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// testServer starts the programs with the arguments of the installed Deployments and the
// permissions of their service accounts. Both must become ready, write CA and caBundle, and
// get no error "forbidden". Uninstalling leaves nothing behind, even while the programs run
// and write the objects that it deletes, and the next release starts like the first.
func testServer(t *testing.T, c *cluster) {
	c.namespace(t, "served", nil)
	c.namespace(t, "served-mesh", nil)
	_, err := c.client.CoreV1().ConfigMaps("served-mesh").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-ca-root-cert"},
		Data:       map[string]string{"root-cert.pem": string(certtest.NewAuthority(t).CertificatePEM)},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	program, before := build(t), c.leftovers(t)

	t.Run("installed", func(t *testing.T) {
		stopPrograms, uninstall := installAndServe(t, c, program)
		for _, stop := range stopPrograms {
			for _, line := range stop() {
				assert.NotContains(t, line, "forbidden")
			}
		}
		uninstall()
	})
	t.Run("installed again, and uninstalled while it runs", func(t *testing.T) {
		stopPrograms, uninstall := installAndServe(t, c, program)
		uninstall()
		for _, stop := range stopPrograms {
			stop()
		}
	})
	assert.Empty(t, c.leftovers(t, before...))
}

// installAndServe installs the chart and starts its programs. It returns functions that
// stop each program, and one that uninstalls the release.
func installAndServe(t *testing.T, c *cluster, program string) (stopPrograms []func() []string, uninstall func()) {
	t.Helper()
	values := filepath.Join(t.TempDir(), "values.yaml")
	require.NoError(t, os.WriteFile(values, []byte(`
istio: {namespace: served-mesh}
logLevel: debug
profiles: {kong: {description: A gateway., match: [{images: [kong/kong-gateway]}]}}
`), 0o600))
	_, err := c.helm("install", "served", chart, "--namespace", "served", "--values", values)
	require.NoError(t, err)
	installed := true
	uninstall = func() {
		if !installed {
			return
		}
		installed = false
		_, err := c.helm("uninstall", "served", "--namespace", "served")
		assert.NoError(t, err)
	}
	t.Cleanup(uninstall)
	settings, err := c.client.CoreV1().ConfigMaps("served").Get(t.Context(), "isthmus-settings", metav1.GetOptions{})
	require.NoError(t, err)

	for _, name := range []string{"isthmus-controller", "isthmus-webhook"} {
		deployment, err := c.client.AppsV1().Deployments("served").Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
		health := freeAddress(t)
		stopPrograms = append(stopPrograms, serve(t, c, program, name, arguments(t, deployment, settings, health)))
		assert.NoError(t, wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 60*time.Second, true, func(ctx context.Context) (bool, error) {
			return isReady(ctx, health), nil
		}), "await /readyz of %s", name)
	}
	for _, hook := range configuration(t, c).Webhooks {
		assert.Contains(t, string(hook.ClientConfig.CABundle), "BEGIN CERTIFICATE", hook.Name)
	}
	secret, err := c.client.CoreV1().Secrets("served").Get(t.Context(), "isthmus-webhook-ca", metav1.GetOptions{})
	require.NoError(t, err)
	assert.NotEmpty(t, secret.Data)
	_, err = c.client.CoordinationV1().Leases("served").Get(t.Context(), "isthmus-controller", metav1.GetOptions{})
	assert.NoError(t, err, "one controller leads")
	return stopPrograms, uninstall
}

// arguments returns the arguments of the Deployment's container, with the paths, ports and
// variables of this machine.
func arguments(t *testing.T, deployment *appsv1.Deployment, settings *corev1.ConfigMap, health string) []string {
	t.Helper()
	folder := t.TempDir()
	for name, content := range settings.Data {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
	}
	_, port, err := net.SplitHostPort(freeAddress(t))
	require.NoError(t, err)
	container := deployment.Spec.Template.Spec.Containers[0]
	list := make([]string, 0, len(container.Args))
	for _, argument := range container.Args {
		argument = strings.ReplaceAll(argument, "/etc/isthmus/", folder+"/")
		argument = strings.ReplaceAll(argument, "$(POD_NAMESPACE)", deployment.Namespace)
		switch flag, _, _ := strings.Cut(argument, "="); flag {
		case "--port":
			argument = flag + "=" + port
			list = append(list, "--host=127.0.0.1")
		case "--health-probe-bind-address":
			argument = flag + "=" + health
		case "--metrics-bind-address":
			argument = flag + "=" + freeAddress(t)
		case "--shutdown-delay":
			argument = flag + "=1s"
		}
		list = append(list, argument)
	}
	return list
}

// serve runs the program as a service account until the test ends. The function that it
// returns stops the program and returns the lines of its log.
func serve(t *testing.T, c *cluster, program, account string, arguments []string) func() []string {
	t.Helper()
	kubeconfig, err := clientcmd.LoadFromFile(c.kubeconfig)
	require.NoError(t, err)
	for _, user := range kubeconfig.AuthInfos {
		user.Impersonate = "system:serviceaccount:served:" + account
		user.ImpersonateGroups = []string{"system:serviceaccounts", "system:authenticated"}
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*kubeconfig, file))

	command := exec.Command(program, append(arguments, "--kubeconfig="+file)...)
	output, err := command.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	var lines []string
	logRead := make(chan struct{})
	go func() {
		defer close(logRead)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			lines = append(lines, scanner.Text())
		}
		_, _ = io.Copy(io.Discard, output)
	}()
	stopped := false
	stop := func() []string {
		if !stopped {
			stopped = true
			_ = command.Process.Signal(syscall.SIGTERM)
			<-logRead
			assert.NoError(t, command.Wait())
			if t.Failed() {
				t.Log(strings.Join(lines, "\n"))
			}
		}
		return lines
	}
	t.Cleanup(func() { stop() })
	return stop
}

func isReady(ctx context.Context, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/readyz", address), nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode == http.StatusOK
}

// freeAddress returns a loopback address whose port was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
