package admission

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// While no server answers, only pods that are opted in are refused.
func TestServerDown(t *testing.T) {
	notOptedIn, optedIn := newNamespace(t), newNamespace(t, enabled)
	kubeSystem := existingNamespace(t, "kube-system")
	require.NoError(t, env.createServiceAccount(t.Context(), kubeSystem.name, "default"))
	env.service.setReplicas()
	t.Cleanup(func() { env.service.setReplicas(env.server) })

	for name, metadata := range minimalMetadata {
		t.Run("admits a minimal pod with "+name, func(t *testing.T) {
			_, err := notOptedIn.dryRunRaw(minimalPod(metadata))
			assert.NoError(t, err)
		})
		t.Run("refuses in an enabled namespace a pod with "+name, func(t *testing.T) {
			_, err := optedIn.dryRunRaw(minimalPod(metadata))
			assert.ErrorContains(t, err, `failed calling webhook "namespace.isthmus.dev": failed to call webhook: Post "`+env.service.url("/inject/namespace")+`?timeout=5s"`)
		})
	}
	mirror := func(p *corev1.Pod) {
		annotated("kubernetes.io/config.mirror", "0123456789abcdef")(p)
		p.Spec.NodeName = "isthmus-test"
	}
	for name, test := range map[string]struct {
		namespace *testNamespace
		pod       *corev1.Pod
	}{
		"opt-out by annotation":       {optedIn, edgePod("edge", annotated("isthmus.dev/inject", "false"))},
		"opt-out by label":            {optedIn, edgePod("edge", labelled("isthmus.dev/inject", "false"))},
		"opt-out by both":             {optedIn, edgePod("edge", labelled("isthmus.dev/inject", "false"), annotated("isthmus.dev/inject", "false"))},
		"opt-out without an opt-in":   {notOptedIn, edgePod("edge", annotated("isthmus.dev/inject", "false"))},
		"mirror pod":                  {optedIn, edgePod("edge", mirror)},
		"mirror pod that is opted in": {notOptedIn, edgePod("edge", mirror, optIn)},
		"opted-in pod of kube-system": {kubeSystem, edgePod("isthmus-test-edge", optIn)},
	} {
		t.Run("admits "+name, func(t *testing.T) {
			pod, err := test.namespace.dryRun(test.pod)
			require.NoError(t, err)
			assert.False(t, isInjected(pod))
		})
	}
	for name, change := range map[string]func(*corev1.Pod){
		"annotation":                   optIn,
		"label":                        labelled("isthmus.dev/inject", "true"),
		"invalid annotation":           annotated("isthmus.dev/inject", "maybe"),
		"label false, annotation true": func(p *corev1.Pod) { optIn(p); labelled("isthmus.dev/inject", "false")(p) },
		"annotation false, label true": func(p *corev1.Pod) {
			annotated("isthmus.dev/inject", "false")(p)
			labelled("isthmus.dev/inject", "true")(p)
		},
	} {
		t.Run("refuses a pod with "+name, func(t *testing.T) {
			_, err := notOptedIn.dryRun(edgePod("edge", change))
			assert.ErrorContains(t, err, `failed calling webhook "pod.isthmus.dev"`)
		})
	}
	t.Run("admits updates of existing pods", func(t *testing.T) {
		pod, err := notOptedIn.create(edgePod("edge"))
		require.NoError(t, err)
		pod.Annotations = map[string]string{"isthmus.dev/inject": "true"}
		_, err = notOptedIn.client.CoreV1().Pods(notOptedIn.name).Update(t.Context(), pod, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		assert.NoError(t, err)
	})
}
