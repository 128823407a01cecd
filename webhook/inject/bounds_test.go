package inject

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestLargePodsAreBounded shows that the author of a pod does not control how much of the
// webhook's memory the pod takes.
func TestLargePodsAreBounded(t *testing.T) {
	engine, err := New(Options{})
	require.NoError(t, err)
	inject := func(name string, annotations map[string]string) Result {
		return engine.Inject(Request{
			Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}, Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: name, Image: "docker.io/emissaryingress/emissary:3.9.1"}},
			}},
			Namespace: policy.Namespace{Name: "edge", Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}},
		})
	}
	r := inject("edge", map[string]string{"a": strings.Repeat("x", maxMetadataBytes)})
	assert.True(t, r.Denied)
	assert.Equal(t, "labels and annotations hold 262145 bytes; Kubernetes takes at most 262144 of a pod", r.Message)
	r = inject("edge", map[string]string{policy.ModeKey: "istio", policy.IstioProxyConfigKey: strings.Repeat("[", maxProxyConfig+1)})
	assert.Contains(t, r.Message, "it holds 16385 bytes, and at most 16384 are read")

	assert.Equal(t, policy.Injected, inject("edge", nil).Reason)
	require.Equal(t, 1, engine.edits.Len())
	for i := range 3 {
		// The API server refuses the name, but only after the webhooks.
		require.Equal(t, policy.Injected, inject(fmt.Sprintf("%d%s", i, strings.Repeat("x", maxCachedBytes)), nil).Reason)
	}
	assert.Equal(t, 1, engine.edits.Len(), "a large edit is not cached")
}
