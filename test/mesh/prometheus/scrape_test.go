package prometheus

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// TestPrometheusScrapesARunningIsthmus contains everything that needs a running Isthmus. Its
// parts run one after the other, because they share one Prometheus.
func TestPrometheusScrapesARunningIsthmus(t *testing.T) {
	env := newEnvironment(t)
	localAddresses := map[string]string{
		env.markPodRunning(t, releaseNamespace, "app.kubernetes.io/component=webhook", "192.0.2.1") + ":8080":    env.webhook.metrics,
		env.markPodRunning(t, releaseNamespace, "app.kubernetes.io/component=controller", "192.0.2.2") + ":8080": env.controller.metrics,
	}
	env.createEdge(t, "front", "edge")
	localAddresses[env.markPodRunning(t, "front", "isthmus.dev/injected=sidecar", "192.0.2.3")+":8877"] = startEdgeMetrics(t)
	env.loadAlerts(t)
	p := env.startPrometheus(t, localAddresses)
	t.Run("the API server accepts every object", func(t *testing.T) { testObjectsAreAccepted(t, env) })
	require.True(t, t.Run("every server is scraped", func(t *testing.T) { testTargetsAreFound(t, p) }))
	require.True(t, t.Run("the rules are healthy", func(t *testing.T) { testRulesAreHealthy(t, p) }))
	require.True(t, t.Run("no alert fires while everything works", func(t *testing.T) { p.awaitFiring(t) }))
	t.Run("every panel has data", func(t *testing.T) { testPanelsHaveData(t, p) })
	t.Run("a missing injection fires an alert until it is repaired", func(t *testing.T) { testMissingInjection(t, env, p) })
	t.Run("a webhook that is down fires an alert until it is back", func(t *testing.T) { testWebhookDown(t, env, p) })
	t.Run("every name in alerts and dashboards is exposed", func(t *testing.T) { testNamesAreExposed(t, env, p) })
}

// createEdge creates an edge pod.
func (env *environment) createEdge(t *testing.T, namespace, name string) {
	t.Helper()
	_, err := env.kube.CoreV1().Pods(namespace).Create(t.Context(), edgePod(name), metav1.CreateOptions{})
	require.NoError(t, err)
}

func edgePod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false),
			Containers:                   []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:3.9.1"}},
		},
	}
}

// markPodRunning waits for the one pod with a label and sets its status as a kubelet would:
// the pod runs and has an address. It returns the address.
func (env *environment) markPodRunning(t *testing.T, namespace, selector, address string) string {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		list, err := env.kube.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
		require.NoError(c, err)
		require.Len(c, list.Items, 1)
		pod := &list.Items[0]
		pod.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		}
		_, err = env.kube.CoreV1().Pods(namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
		require.NoError(c, err)
	}, timeout, pollInterval, "the pod of %s in %s", selector, namespace)
	return address
}

// startEdgeMetrics replaces Emissary's admin port, with the metrics of Envoy and of Istio's
// proxies that the dashboard selects: neither program can run here.
func startEdgeMetrics(t *testing.T) string {
	t.Helper()
	exposition, err := os.ReadFile("testdata/edge.metrics")
	require.NoError(t, err)
	s := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/metrics" {
			http.NotFound(response, request)
			return
		}
		_, _ = response.Write(exposition)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// loadAlerts runs the command of the page that gives the alerts to the Prometheus of Istio's
// addon.
func (env *environment) loadAlerts(t *testing.T) {
	t.Helper()
	var command string
	for _, block := range shellBlocks(t, "observability.md") {
		if strings.Contains(block, "patch configmap prometheus") {
			command = block
		}
	}
	require.NotEmpty(t, command, "the page has such a command")
	_, err := run(t.Context(), command, "env", "KUBECONFIG="+env.plane.Kubeconfig, "PATH="+filepath.Dir(kubectl)+":"+os.Getenv("PATH"), "sh", "-e", "-s")
	require.NoError(t, err)
}

func testTargetsAreFound(t *testing.T, p *prometheus) {
	for service, count := range map[string]int{"isthmus-webhook-metrics": 1, "isthmus-controller-metrics": 1, "isthmus-edge-sidecar": 1} {
		found := p.awaitQuery(t, `up{service="`+service+`"} == 1`, count)
		assert.Equal(t, "kubernetes-service-endpoints", found[0].Labels["job"])
	}
	others, err := p.query(t.Context(), `up == 0`)
	require.NoError(t, err)
	assert.Empty(t, others)

	t.Run("a certificate's namespace is the edge's", func(t *testing.T) {
		found := p.awaitQuery(t, `isthmus_certificate_not_after_timestamp_seconds{namespace="front", secret="istio-certs"} > time()`, 1)
		assert.Equal(t, "spiffe://cluster.local/ns/front/sa/default", found[0].Labels["spiffe_id"])
		assert.NotContains(t, found[0].Labels, "exported_namespace")
	})
	t.Run("an edge's series have its injection mode as a label", func(t *testing.T) {
		found := p.awaitQuery(t, `envoy_server_live{isthmus_dev_injected="sidecar"}`, 1)
		assert.Equal(t, "front", found[0].Labels["namespace"])
	})
}

func testRulesAreHealthy(t *testing.T, p *prometheus) {
	type evaluatedRule struct{ Name, Health, LastError, LastEvaluation string }
	var data struct {
		Groups []struct{ Rules []evaluatedRule }
	}
	want := alerts(t, rulesText(t, ""))
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.NoError(c, p.queryAPI(t.Context(), "rules", nil, &data))
		count := 0
		for _, group := range data.Groups {
			for _, r := range group.Rules {
				require.Equal(c, "ok", r.Health, "%s: %s", r.Name, r.LastError)
				count++
			}
		}
		require.Equal(c, len(want), count)
	}, timeout, pollInterval)
}

func testPanelsHaveData(t *testing.T, p *prometheus) {
	all := expressions(t)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		for name, expression := range all {
			found, err := p.query(t.Context(), expression)
			require.NoError(c, err)
			assert.NotEmpty(c, found, "%s: %s", name, expression)
		}
	}, timeout, time.Second)
}

// A pod that is older than the label of its namespace has no identity. The test deletes it,
// as a rollout would.
func testMissingInjection(t *testing.T, env *environment, p *prometheus) {
	env.createNamespace(t, "late", nil)
	env.createEdge(t, "late", "edge")
	_, err := env.kubectl(t.Context(), "label", "namespace", "late", "isthmus.dev/injection=enabled")
	require.NoError(t, err)
	p.awaitFiring(t, "IsthmusInjectionMissing")
	found := p.awaitQuery(t, `ALERTS{alertname="IsthmusInjectionMissing", alertstate="firing"}`, 1)
	assert.Equal(t, map[string]string{
		"__name__": "ALERTS", "alertname": "IsthmusInjectionMissing", "alertstate": "firing",
		"namespace": "late", "mode": "sidecar", "severity": "warning",
	}, found[0].Labels)
	require.NoError(t, env.kube.CoreV1().Pods("late").Delete(t.Context(), "edge", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
	p.awaitFiring(t)
}

func testWebhookDown(t *testing.T, env *environment, p *prometheus) {
	env.webhook.End(syscall.SIGTERM)
	_, err := env.kube.CoreV1().Pods("front").Create(t.Context(), edgePod("refused"), metav1.CreateOptions{})
	require.True(t, apierrors.IsInternalError(err), "the API server refuses the pod: %v", err)
	p.awaitFiring(t, "IsthmusWebhookDown")
	env.admitWithoutWebhook(t)
	require.NoError(t, env.webhook.restart())
	require.NoError(t, env.webhook.await(t.Context()))
	p.awaitFiring(t)
}

// admitWithoutWebhook waits until the API server admits a pod while the webhook is down, in
// a dry run.
func (env *environment) admitWithoutWebhook(t *testing.T) {
	t.Helper()
	policy := func(value string) {
		_, err := env.kubectl(t.Context(), "patch", "mutatingwebhookconfiguration", "isthmus-injector", "--type=json",
			"--patch", `[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "`+value+`"}]`)
		require.NoError(t, err)
	}
	policy("Ignore")
	defer policy("Fail")
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		_, err := env.kube.CoreV1().Pods("front").Create(t.Context(), edgePod("let-in"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.NoError(c, err)
	}, timeout, pollInterval)
}
