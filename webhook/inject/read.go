package inject

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// StaleTemplate is the code of the warning about a pod that was injected with
// another template than the current one.
const StaleTemplate = "stale-template"

// ReadStatus reads a pod's status annotation; nil where it has none. It is the
// pod author's word.
func ReadStatus(pod *corev1.Pod) (*Status, error) {
	text, ok := pod.Annotations[policy.StatusKey]
	if !ok {
		return nil, nil
	}
	return parseStatus(text)
}
