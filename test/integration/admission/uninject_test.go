package admission

import (
	"encoding/json"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// An injected pod from the API server, with defaulted fields and the token also mounted
// into the sidecar, is reverted to what it would be without injection.
func TestUninjectedLivePodIsThePodWithoutInjection(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"minimal": func(p *corev1.Pod) {
			*p = corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Spec: corev1.PodSpec{Containers: p.Spec.Containers}}
		},
		"without a token": func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = ptr.To(false) },
		"with an existing volume istio-certs": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "istio-certs", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
		},
		"with many fields": func(p *corev1.Pod) {
			labelled("app", "edge")(p)
			annotated("sidecar.istio.io/inject", "false")(p)
			p.Spec.InitContainers = []corev1.Container{{Name: "wait", Image: "docker.io/library/busybox:1"}}
			p.Spec.Volumes = []corev1.Volume{{Name: "scratch"}}
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AMBASSADOR_ENVOY_BASE_ID", Value: "3"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			notOptedIn, optedIn := newNamespace(t), newNamespace(t, enabled)
			want, err := notOptedIn.create(edgePod("edge", change))
			require.NoError(t, err)
			_, err = optedIn.create(edgePod("edge", change))
			require.NoError(t, err)
			live, err := optedIn.client.CoreV1().Pods(optedIn.name).Get(t.Context(), "edge", metav1.GetOptions{})
			require.NoError(t, err)
			require.True(t, isInjected(live))

			got, err := uninject(t, live)

			require.NoError(t, err)
			assert.JSONEq(t, canonical(t, want), canonical(t, got))
		})
	}
}

// uninject applies the operations that Uninject returns.
func uninject(t *testing.T, pod *corev1.Pod) (*corev1.Pod, error) {
	t.Helper()
	operations, err := inject.Uninject(pod)
	if err != nil {
		return nil, err
	}
	before, err := json.Marshal(pod)
	require.NoError(t, err)
	encoded, err := json.Marshal(operations)
	require.NoError(t, err)
	patch, err := jsonpatch.DecodePatch(encoded)
	require.NoError(t, err)
	after, err := patch.Apply(before)
	require.NoError(t, err)
	got := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(after, got))
	return got, nil
}
