package chart

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	namespaceWebhook = "namespace.isthmus.dev"
	podWebhook       = "pod.isthmus.dev"
	injectKey        = "isthmus.dev/inject"
)

// matcher finds out which of the chart's webhooks the API server calls. Each webhook is
// installed alone, cannot be reached and fails closed, so a refused pod was sent to it.
type matcher struct {
	*cluster
	webhooks map[string]admissionv1.MutatingWebhook
}

// install installs one of the chart's webhooks and no other.
func (m *matcher) install(t *testing.T, name string) {
	t.Helper()
	configurations := m.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	configuration := &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "isthmus-matching"},
		Webhooks:   []admissionv1.MutatingWebhook{m.webhooks[name]},
	}
	_, err := configurations.Create(t.Context(), configuration, metav1.CreateOptions{})
	require.NoError(t, err, "the API server compiles every expression")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := configurations.Delete(ctx, configuration.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("remove the webhook configuration: %v", err)
		}
		m.await(ctx, t, name, false)
	})
	m.await(t.Context(), t, name, true)
}

// await waits until the API server has observed a change of the configuration.
func (m *matcher) await(ctx context.Context, t *testing.T, name string, want bool) {
	t.Helper()
	probe := pod(nil, nil)
	if name == podWebhook {
		probe.Annotations = map[string]string{injectKey: "true"}
	}
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		return m.isCalled(ctx, name, "matching-enabled", probe) == want, nil
	})
	if err != nil {
		t.Errorf("await that %s is called: %t: %v", name, want, err)
	}
}

func (m *matcher) isCalled(ctx context.Context, name, namespace string, pod *corev1.Pod) bool {
	_, err := m.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err != nil && strings.Contains(err.Error(), `failed calling webhook "`+name+`"`)
}

// isSent reports whether a webhook is called for a pod. The pod is valid, so any other
// error is a mistake in the test or in an expression.
func (m *matcher) isSent(t *testing.T, name, namespace string, pod *corev1.Pod) bool {
	t.Helper()
	_, err := m.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil {
		return false
	}
	require.ErrorContains(t, err, `failed calling webhook "`+name+`"`)
	return true
}

// pod returns a minimal pod with one container.
func pod(labels, annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "bare", Labels: labels, Annotations: annotations},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "edge", Image: "example.org/edge:1"}},
		},
	}
}

func testMatching(t *testing.T, c *cluster) {
	list := renderObjects(t, "matching", "matching-release", "webhook: {excludedNamespaces: [matching-excluded]}")
	rendered := findObject[admissionv1.MutatingWebhookConfiguration](t, list, "MutatingWebhookConfiguration", "isthmus-injector")
	m := &matcher{cluster: c, webhooks: map[string]admissionv1.MutatingWebhook{}}
	for _, hook := range rendered.Webhooks {
		m.webhooks[hook.Name] = hook
	}
	require.Len(t, m.webhooks, 2)

	enabled := map[string]string{"isthmus.dev/injection": "enabled"}
	c.namespace(t, "matching-plain", nil)
	c.namespace(t, "matching-enabled", enabled)
	c.namespace(t, "matching-locked", map[string]string{"isthmus.dev/injection": "disabled"})
	c.namespace(t, "matching-odd", map[string]string{"isthmus.dev/injection": "true"})
	c.namespace(t, "matching-excluded", enabled)
	c.namespace(t, "matching-release", enabled)
	c.account(t, "kube-system")
	label(t, c, "kube-system", `{"metadata":{"labels":{"isthmus.dev/injection":"enabled"}}}`)
	t.Cleanup(func() {
		label(t, c, "kube-system", `{"metadata":{"labels":{"isthmus.dev/injection":null}}}`)
	})

	for _, name := range []string{namespaceWebhook, podWebhook} {
		t.Run(name, func(t *testing.T) {
			m.install(t, name)
			for description, row := range matchingTable() {
				t.Run(description, func(t *testing.T) {
					for namespace, want := range map[string]string{
						"matching-plain":    row.elsewhere,
						"matching-locked":   row.elsewhere,
						"matching-odd":      row.elsewhere,
						"matching-enabled":  row.enabled,
						"matching-excluded": "",
						"matching-release":  "",
						"kube-system":       "",
					} {
						assert.Equal(t, want == name, m.isSent(t, name, namespace, row.pod), "sent to %s from %s", name, namespace)
					}
				})
			}
			t.Run("updates of a pod", func(t *testing.T) { testUpdate(t, m) })
		})
	}
}

// matchingRow is a pod and the webhook that it is sent to, by namespace. Empty means none.
type matchingRow struct {
	pod                *corev1.Pod
	enabled, elsewhere string
}

func matchingTable() map[string]matchingRow {
	optedIn, declined := map[string]string{injectKey: "true"}, map[string]string{injectKey: "false"}
	other := map[string]string{"app": "edge", "isthmus.dev/injected": "sidecar", "isthmus.dev/mode": "sidecar"}
	value := func(v string) map[string]string { return map[string]string{injectKey: v} }
	mirror := map[string]string{"kubernetes.io/config.mirror": "0"}
	optedInMirror := map[string]string{"kubernetes.io/config.mirror": "0", injectKey: "true"}
	generated := pod(nil, nil)
	generated.Name, generated.GenerateName = "", "edge-"
	optedInGenerated := generated.DeepCopy()
	optedInGenerated.Annotations = optedIn
	rows := map[string]matchingRow{
		"no labels, no annotations":       {pod(nil, nil), namespaceWebhook, ""},
		"empty labels and annotations":    {pod(map[string]string{}, map[string]string{}), namespaceWebhook, ""},
		"other labels":                    {pod(other, nil), namespaceWebhook, ""},
		"other annotations":               {pod(nil, other), namespaceWebhook, ""},
		"other labels and annotations":    {pod(other, other), namespaceWebhook, ""},
		"generated name":                  {generated, namespaceWebhook, ""},
		"generated name, annotation true": {optedInGenerated, podWebhook, podWebhook},
		"label true":                      {pod(optedIn, nil), podWebhook, podWebhook},
		"annotation true":                 {pod(nil, optedIn), podWebhook, podWebhook},
		"both true":                       {pod(optedIn, optedIn), podWebhook, podWebhook},
		"label false":                     {pod(declined, nil), "", ""},
		"annotation false":                {pod(nil, declined), "", ""},
		"both false":                      {pod(declined, declined), "", ""},
		"label false, annotation true":    {pod(declined, optedIn), podWebhook, podWebhook},
		"label true, annotation false":    {pod(optedIn, declined), podWebhook, podWebhook},
		"label empty":                     {pod(value(""), nil), podWebhook, podWebhook},
		"annotation empty":                {pod(nil, value("")), podWebhook, podWebhook},
		"label False":                     {pod(value("False"), nil), podWebhook, podWebhook},
		"annotation that is no boolean":   {pod(nil, value("yes, please")), podWebhook, podWebhook},
		"label false, other annotations":  {pod(declined, other), "", ""},
		"annotation false, other labels":  {pod(other, declined), "", ""},
		"annotation true, other labels":   {pod(other, optedIn), podWebhook, podWebhook},
		"mirror of a static pod":          {pod(nil, mirror), "", ""},
		"mirror, annotation true":         {pod(nil, optedInMirror), "", ""},
		"mirror, label true":              {pod(optedIn, mirror), "", ""},
	}
	for _, row := range rows {
		if _, isMirror := row.pod.Annotations["kubernetes.io/config.mirror"]; isMirror {
			row.pod.Spec.NodeName = "node" // a mirror is bound from the start
		}
	}
	return rows
}

// testUpdate updates a pod in every possible way. None of the updates may be sent.
func testUpdate(t *testing.T, m *matcher) {
	ctx := t.Context()
	pods := m.client.CoreV1().Pods("matching-enabled")
	optedOut := pod(map[string]string{injectKey: "false"}, nil)
	optedOut.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
	_, err := pods.Create(ctx, optedOut, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := pods.Delete(ctx, "bare", *metav1.NewDeleteOptions(0)); err != nil {
			t.Errorf("remove the pod: %v", err)
		}
	})
	patch := func(content string, subresources ...string) error {
		_, err := pods.Patch(ctx, "bare", types.StrategicMergePatchType, []byte(content), metav1.PatchOptions{}, subresources...)
		return err
	}
	// A webhook would be called if the pod were created with these values.
	for round, value := range []string{`"true"`, `null`} {
		assert.NoError(t, patch(fmt.Sprintf(`{"metadata":{"labels":{"isthmus.dev/inject":%s}}}`, value)))
		assert.NoError(t, patch(fmt.Sprintf(`{"spec":{"ephemeralContainers":[{"name":"debug-%d","image":"example.org/debug:1"}]}}`, round), "ephemeralcontainers"))
		assert.NoError(t, patch(fmt.Sprintf(`{"spec":{"containers":[{"name":"edge","resources":{"requests":{"cpu":"%d"}}}]}}`, round+2), "resize"))
		assert.NoError(t, patch(fmt.Sprintf(`{"status":{"message":"changed %d times"}}`, round), "status"))
	}
}

func label(t *testing.T, c *cluster, namespace, patch string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.client.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(t, err)
}
