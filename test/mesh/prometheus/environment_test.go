package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/test/framework/process"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
)

// timeout limits each wait, with room for a busy machine.
const timeout = 60 * time.Second

// pollInterval is the time between two checks of an awaited condition.
const pollInterval = 100 * time.Millisecond

// installedValues are the values that the chart is installed with: everything for a
// Prometheus that finds its targets by annotations, and for the operator's.
const installedValues = `
replicaCount: 1
controller: {replicaCount: 1}
metrics: {scrapeAnnotations: true, serviceMonitor: {enabled: true}}
integrations:
  edgeMetrics: {namespaces: [front], scrapeAnnotations: true, podMonitor: {enabled: true}}
  alerts: {prometheusRule: {enabled: true}, configMap: {enabled: true}}
  grafana: {enabled: true}
`

// environment is a control plane with istiod, the objects of Istio's addon, the chart, and
// the chart's servers as processes.
type environment struct {
	plane  *controlplane.Plane
	admin  *rest.Config
	kube   kubernetes.Interface
	folder string
	// addon is the path of the manifest of Istio's Prometheus.
	addon string
	// chart is what Helm rendered.
	chart []*unstructured.Unstructured
	// webhook and controller are the chart's servers.
	webhook, controller *replica
}

// replica is one of the chart's servers.
type replica struct {
	*process.Process
	options process.Options
	health  string
	// metrics is the address of its metrics.
	metrics string
}

func newEnvironment(t *testing.T) *environment {
	t.Helper()
	ctx := t.Context()
	env := &environment{folder: t.TempDir()}
	// The control plane is never a cluster that KUBECONFIG names: CRDs and Istio's addon
	// would stay in it.
	t.Setenv("KUBECONFIG", "")
	var err error
	env.plane, err = controlplane.Start(ctx, "--controller-manager")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, env.plane.Stop()) })
	env.admin, err = env.plane.Admin()
	require.NoError(t, err)
	env.kube, err = kubernetes.NewForConfig(env.admin)
	require.NoError(t, err)
	istiod, err := istio.Start(ctx, env.plane, istio.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, istiod.Stop()) })

	module, err := moduleFolder(ctx, "pilot", "istio.io/istio")
	require.NoError(t, err)
	env.addon = filepath.Join(module, "samples", "addons", "prometheus.yaml")
	crds, err := operatorCRDs(ctx)
	require.NoError(t, err)
	for _, file := range append(crds, env.addon) {
		_, err = env.kubectl(ctx, "apply", "--server-side", "-f", file)
		require.NoError(t, err)
	}
	env.createNamespace(t, releaseNamespace, nil)
	env.createNamespace(t, "front", map[string]string{"isthmus.dev/injection": "enabled"})
	env.chart = render(t, installedValues)
	env.startServers(t)
	return env
}

// startServers applies the chart and runs its servers, with the arguments and the
// permissions that they have there.
func (env *environment) startServers(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	binary := filepath.Join(env.folder, "isthmus")
	_, err := run(ctx, "", "go", "build", "-C", root, "-o", binary, "./cmd/isthmus")
	require.NoError(t, err)
	addresses, err := process.FreeAddresses(5)
	require.NoError(t, err)
	reviews := addresses[0]
	for _, object := range env.chart {
		callByURL(object, "https://"+reviews)
	}
	require.NoError(t, env.apply(ctx, env.chart))
	_, port, _ := strings.Cut(reviews, ":")
	env.controller = env.start(t, binary, "isthmus-controller", addresses[1], addresses[2], "--survey-interval=1s", "--look-interval=1s")
	env.webhook = env.start(t, binary, "isthmus-webhook", addresses[3], addresses[4],
		"--host=127.0.0.1", "--port="+port, "--serving-name=127.0.0.1", "--shutdown-delay=1s")
	for _, r := range []*replica{env.controller, env.webhook} {
		require.NoError(t, r.await(ctx))
	}
}

// callByURL makes the API server call this machine instead of a Service.
func callByURL(object *unstructured.Unstructured, server string) {
	webhooks, _ := object.Object["webhooks"].([]any)
	for _, one := range webhooks {
		webhook, ok := one.(map[string]any)
		if !ok {
			continue
		}
		path, _, _ := unstructured.NestedString(webhook, "clientConfig", "service", "path")
		webhook["clientConfig"] = map[string]any{"url": server + path}
	}
}

// start runs a program of the chart until the test ends.
func (env *environment) start(t *testing.T, binary, name, health, metrics string, flags ...string) *replica {
	t.Helper()
	deployment := &appsv1.Deployment{}
	require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(find(t, env.chart, "Deployment", name).Object, deployment))
	settings := filepath.Join(env.folder, "settings.yaml")
	require.NoError(t, os.WriteFile(settings, []byte(text(t, find(t, env.chart, "ConfigMap", "isthmus-settings"), "settings.yaml")), 0o600))
	podVariables := strings.NewReplacer("$(POD_NAMESPACE)", releaseNamespace, "/etc/isthmus/settings.yaml", settings)
	var arguments []string
	for _, a := range deployment.Spec.Template.Spec.Containers[0].Args {
		arguments = append(arguments, podVariables.Replace(a))
	}
	arguments = append(arguments, "--kubeconfig="+env.kubeconfig(t, releaseNamespace, name),
		"--health-probe-bind-address="+health, "--metrics-bind-address="+metrics)
	r := &replica{health: health, metrics: metrics, options: process.Options{
		Name: name, Program: binary, Arguments: append(arguments, flags...), Log: filepath.Join(env.folder, name+".log"),
	}}
	require.NoError(t, r.restart())
	t.Cleanup(func() {
		r.End(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("%s:\n%s", name, controlplane.Tail(r.options.Log, 20))
		}
	})
	return r
}

// restart starts the program again, at the same addresses.
func (r *replica) restart() (err error) {
	r.Process, err = process.Start(r.options)
	return err
}

// await waits until the program is ready.
func (r *replica) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return r.AwaitReady(ctx, func(ctx context.Context) error {
		body, err := scrape.Get(ctx, "http://"+r.health+"/readyz?verbose")
		if err != nil {
			return fmt.Errorf("%w: %s", err, body)
		}
		return nil
	})
}

// kubeconfig writes a kubeconfig that holds only a token of a service account.
func (env *environment) kubeconfig(t *testing.T, namespace, account string) string {
	t.Helper()
	token, err := env.kube.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(t, err)
	admin := rest.CopyConfig(env.admin)
	require.NoError(t, rest.LoadTLSFiles(admin))
	path := filepath.Join(env.folder, account+".kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: admin.Host, CertificateAuthorityData: admin.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: token.Status.Token}},
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "c",
	}, path))
	return path
}

// kubectl runs kubectl as the administrator.
func (env *environment) kubectl(ctx context.Context, arguments ...string) (string, error) {
	return run(ctx, "", kubectl, append([]string{"--kubeconfig", env.plane.Kubeconfig}, arguments...)...)
}

// apply applies objects to the API server, which refuses unknown fields.
func (env *environment) apply(ctx context.Context, list []*unstructured.Unstructured, flags ...string) error {
	var stream strings.Builder
	for _, object := range list {
		data, err := json.Marshal(object)
		if err != nil {
			return err
		}
		stream.Write(append(data, '\n'))
	}
	_, err := run(ctx, stream.String(), kubectl, append([]string{
		"--kubeconfig", env.plane.Kubeconfig, "apply", "--server-side", "--validate=strict", "-f", "-",
	}, flags...)...)
	return err
}

// createNamespace creates a namespace with these labels.
func (env *environment) createNamespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	_, err := env.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := env.kube.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	}, timeout, pollInterval, "the service account of namespace %s", name)
}
