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
	byNamespace = "namespace.isthmus.dev"
	byPod       = "pod.isthmus.dev"
	optIn       = "isthmus.dev/inject"
)

// matcher tells which of the chart's webhooks the API server calls: each is
// installed alone, cannot be reached and fails closed, so that a pod that is
// refused was sent.
type matcher struct {
	*cluster
	hooks map[string]admissionv1.MutatingWebhook
}

// install makes the API server use one of the chart's webhooks and no other.
func (m *matcher) install(t *testing.T, name string) {
	t.Helper()
	configurations := m.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	configuration := &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "isthmus-matching"},
		Webhooks:   []admissionv1.MutatingWebhook{m.hooks[name]},
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

// await waits until the API server has noticed a change of the configuration.
func (m *matcher) await(ctx context.Context, t *testing.T, name string, want bool) {
	t.Helper()
	probe := pod(nil, nil)
	if name == byPod {
		probe.Annotations = map[string]string{optIn: "true"}
	}
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		return m.refuses(ctx, name, "matching-enabled", probe) == want, nil
	})
	if err != nil {
		t.Errorf("await that %s is called: %t: %v", name, want, err)
	}
}

func (m *matcher) refuses(ctx context.Context, name, namespace string, pod *corev1.Pod) bool {
	_, err := m.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err != nil && strings.Contains(err.Error(), `failed calling webhook "`+name+`"`)
}

// sent says whether a webhook is called for a pod. The pod is valid, so any
// other error is one of the test's, or of an expression.
func (m *matcher) sent(t *testing.T, name, namespace string, pod *corev1.Pod) bool {
	t.Helper()
	_, err := m.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil {
		return false
	}
	require.ErrorContains(t, err, `failed calling webhook "`+name+`"`)
	return true
}

// pod returns the barest pod that there is: nothing but a container.
func pod(labels, annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "bare", Labels: labels, Annotations: annotations},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "edge", Image: "example.org/edge:1"}},
		},
	}
}

func testMatching(t *testing.T, c *cluster) {
	list := objects(t, "matching", "matching-release", "webhook: {excludedNamespaces: [matching-excluded]}")
	rendered := find[admissionv1.MutatingWebhookConfiguration](t, list, "MutatingWebhookConfiguration", "isthmus-injector")
	m := &matcher{cluster: c, hooks: map[string]admissionv1.MutatingWebhook{}}
	for _, hook := range rendered.Webhooks {
		m.hooks[hook.Name] = hook
	}
	require.Len(t, m.hooks, 2)

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

	for _, name := range []string{byNamespace, byPod} {
		t.Run(name, func(t *testing.T) {
			m.install(t, name)
			for what, row := range matchingTable() {
				t.Run(what, func(t *testing.T) {
					for namespace, want := range map[string]string{
						"matching-plain":    row.elsewhere,
						"matching-locked":   row.elsewhere,
						"matching-odd":      row.elsewhere,
						"matching-enabled":  row.enabled,
						"matching-excluded": "",
						"matching-release":  "",
						"kube-system":       "",
					} {
						assert.Equal(t, want == name, m.sent(t, name, namespace, row.pod), "sent to %s from %s", name, namespace)
					}
				})
			}
			t.Run("a pod that changes", func(t *testing.T) { testUpdate(t, m) })
		})
	}
}

// matchingRow says which webhook a pod is sent to; none when empty.
type matchingRow struct {
	pod                *corev1.Pod
	enabled, elsewhere string
}

func matchingTable() map[string]matchingRow {
	yes, no := map[string]string{optIn: "true"}, map[string]string{optIn: "false"}
	other := map[string]string{"app": "edge", "isthmus.dev/injected": "sidecar", "isthmus.dev/mode": "sidecar"}
	value := func(v string) map[string]string { return map[string]string{optIn: v} }
	mirror := map[string]string{"kubernetes.io/config.mirror": "0"}
	mirrorThatAsks := map[string]string{"kubernetes.io/config.mirror": "0", optIn: "true"}
	generated := pod(nil, nil)
	generated.Name, generated.GenerateName = "", "edge-"
	generatedThatAsks := generated.DeepCopy()
	generatedThatAsks.Annotations = yes
	rows := map[string]matchingRow{
		"says nothing at all":             {pod(nil, nil), byNamespace, ""},
		"has empty labels":                {pod(map[string]string{}, map[string]string{}), byNamespace, ""},
		"has other labels":                {pod(other, nil), byNamespace, ""},
		"has other annotations":           {pod(nil, other), byNamespace, ""},
		"has others of both":              {pod(other, other), byNamespace, ""},
		"gets its name from the server":   {generated, byNamespace, ""},
		"gets its name and asks":          {generatedThatAsks, byPod, byPod},
		"label true":                      {pod(yes, nil), byPod, byPod},
		"annotation true":                 {pod(nil, yes), byPod, byPod},
		"both true":                       {pod(yes, yes), byPod, byPod},
		"label false":                     {pod(no, nil), "", ""},
		"annotation false":                {pod(nil, no), "", ""},
		"both false":                      {pod(no, no), "", ""},
		"label false, annotation true":    {pod(no, yes), byPod, byPod},
		"label true, annotation false":    {pod(yes, no), byPod, byPod},
		"label empty":                     {pod(value(""), nil), byPod, byPod},
		"annotation empty":                {pod(nil, value("")), byPod, byPod},
		"label False":                     {pod(value("False"), nil), byPod, byPod},
		"annotation that is no boolean":   {pod(nil, value("yes, please")), byPod, byPod},
		"label false, other annotations":  {pod(no, other), "", ""},
		"annotation false, other labels":  {pod(other, no), "", ""},
		"annotation true, other labels":   {pod(other, yes), byPod, byPod},
		"a mirror of a static pod":        {pod(nil, mirror), "", ""},
		"a mirror that asks":              {pod(nil, mirrorThatAsks), "", ""},
		"a mirror that asks by its label": {pod(yes, mirror), "", ""},
	}
	for _, row := range rows {
		if _, mirrored := row.pod.Annotations["kubernetes.io/config.mirror"]; mirrored {
			row.pod.Spec.NodeName = "node" // a mirror is bound from the start
		}
	}
	return rows
}

// testUpdate changes a pod in every way there is; none may be sent.
func testUpdate(t *testing.T, m *matcher) {
	ctx := t.Context()
	pods := m.client.CoreV1().Pods("matching-enabled")
	quiet := pod(map[string]string{optIn: "false"}, nil)
	quiet.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
	_, err := pods.Create(ctx, quiet, metav1.CreateOptions{})
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
	// Were the pod created like this, one webhook or the other would be called.
	for turn, says := range []string{`"true"`, `null`} {
		assert.NoError(t, patch(fmt.Sprintf(`{"metadata":{"labels":{"isthmus.dev/inject":%s}}}`, says)))
		assert.NoError(t, patch(fmt.Sprintf(`{"spec":{"ephemeralContainers":[{"name":"debug-%d","image":"example.org/debug:1"}]}}`, turn), "ephemeralcontainers"))
		assert.NoError(t, patch(fmt.Sprintf(`{"spec":{"containers":[{"name":"edge","resources":{"requests":{"cpu":"%d"}}}]}}`, turn+2), "resize"))
		assert.NoError(t, patch(fmt.Sprintf(`{"status":{"message":"changed %d times"}}`, turn), "status"))
	}
}

func label(t *testing.T, c *cluster, namespace, patch string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.client.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(t, err)
}
