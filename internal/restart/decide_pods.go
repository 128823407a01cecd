package restart

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// StalePod is a pod that was injected with another template than the current one.
type StalePod struct {
	// Pod and UID identify the pod.
	Pod types.NamespacedName
	UID types.UID
	// Mode is the mode that the pod was injected in.
	Mode policy.Mode
	// Owner is the controller of the pod; nil when it has none.
	Owner *metav1.OwnerReference
	// Template is the hash of the current template. It is empty for a pod that was
	// changed by hand; nothing is restarted for such a pod.
	Template string
}

// podSummary sorts the pods of a workload by what was injected into them.
type podSummary struct {
	// current is the number of pods of the current template.
	current int
	// notInjected are the names of pods without an injection.
	notInjected []string
	// stale are the names of stale pods, by the hash of the current template.
	stale map[string][]string
}

// template is the hash of the current template; empty when no pod is stale.
func (p podSummary) template() string {
	if len(p.stale) == 0 {
		return ""
	}
	return slices.Min(slices.Collect(maps.Keys(p.stale)))
}

func (p *podSummary) add(pod *corev1.Pod, result inject.Result) {
	if _, injected := pod.Labels[policy.InjectedLabel]; !injected {
		p.notInjected = append(p.notInjected, pod.Name)
		return
	}
	s := result.Staleness()
	switch {
	case !s.Stale:
		p.current++
	case s.Template != "":
		p.stale[s.Template] = append(p.stale[s.Template], pod.Name)
	}
}
