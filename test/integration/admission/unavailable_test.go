package admission

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// While no server answers, whoever did not ask must not notice.
func TestServerDown(t *testing.T) {
	plain, opted := newSpace(t), newSpace(t, enabled)
	kube := spaceIn(t, "kube-system")
	require.NoError(t, world.createServiceAccount(t.Context(), kube.name, "default"))
	world.door.lead()
	t.Cleanup(func() { world.door.lead(world.server) })

	for name, metadata := range bareMetadata {
		t.Run("admits a bare pod with "+name, func(t *testing.T) {
			_, err := plain.dryRunRaw(barePod(metadata))
			assert.NoError(t, err)
		})
		t.Run("refuses where the namespace is enabled a pod with "+name, func(t *testing.T) {
			_, err := opted.dryRunRaw(barePod(metadata))
			assert.ErrorContains(t, err, `failed calling webhook "namespace.isthmus.dev": failed to call webhook: Post "`+world.door.url("/inject/namespace")+`?timeout=5s"`)
		})
	}
	mirror := func(p *corev1.Pod) {
		annotated("kubernetes.io/config.mirror", "0123456789abcdef")(p)
		p.Spec.NodeName = "isthmus-test"
	}
	for name, test := range map[string]struct {
		space *space
		pod   *corev1.Pod
	}{
		"opt-out by annotation":         {opted, edgePod("edge", annotated("isthmus.dev/inject", "false"))},
		"opt-out by label":              {opted, edgePod("edge", labelled("isthmus.dev/inject", "false"))},
		"opt-out by both":               {opted, edgePod("edge", labelled("isthmus.dev/inject", "false"), annotated("isthmus.dev/inject", "false"))},
		"opt-out where nobody opted in": {plain, edgePod("edge", annotated("isthmus.dev/inject", "false"))},
		"mirror pod":                    {opted, edgePod("edge", mirror)},
		"mirror pod that asks":          {plain, edgePod("edge", mirror, asks)},
		"pod of kube-system that asks":  {kube, edgePod("isthmus-test-edge", asks)},
	} {
		t.Run("admits "+name, func(t *testing.T) {
			pod, err := test.space.dryRun(test.pod)
			require.NoError(t, err)
			assert.False(t, isInjected(pod))
		})
	}
	for name, change := range map[string]func(*corev1.Pod){
		"annotation":         asks,
		"label":              labelled("isthmus.dev/inject", "true"),
		"invalid annotation": annotated("isthmus.dev/inject", "maybe"),
		"disagreeing key":    func(p *corev1.Pod) { asks(p); labelled("isthmus.dev/inject", "false")(p) },
		"disagreeing key again": func(p *corev1.Pod) {
			annotated("isthmus.dev/inject", "false")(p)
			labelled("isthmus.dev/inject", "true")(p)
		},
	} {
		t.Run("refuses a pod that asks by "+name, func(t *testing.T) {
			_, err := plain.dryRun(edgePod("edge", change))
			assert.ErrorContains(t, err, `failed calling webhook "pod.isthmus.dev"`)
		})
	}
	t.Run("admits changes of pods that run", func(t *testing.T) {
		pod, err := plain.create(edgePod("edge"))
		require.NoError(t, err)
		pod.Annotations = map[string]string{"isthmus.dev/inject": "true"}
		_, err = plain.client.CoreV1().Pods(plain.name).Update(t.Context(), pod, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		assert.NoError(t, err)
	})
}
