package admission

import (
	"encoding/json"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tokenVolume matches a volume name that the API server generates.
var tokenVolume = regexp.MustCompile(`kube-api-access-[a-z0-9]{5}`)

// canonical returns the pod as JSON, without the fields that differ between two pods that
// were created in the same way.
func canonical(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	pod = pod.DeepCopy()
	pod.Namespace, pod.UID, pod.ResourceVersion = "", "", ""
	pod.Generation, pod.CreationTimestamp, pod.ManagedFields = 0, metav1.Time{}, nil
	pod.Status = corev1.PodStatus{}
	data, err := json.MarshalIndent(pod, "", " ")
	require.NoError(t, err)
	return tokenVolume.ReplaceAllString(string(data), "kube-api-access")
}
