package inject

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// planMetadata marks the pod and opts it out of other injectors, in the modes without
// Istio's own sidecar. It returns a message about a conflict, or "".
func (s *subject) planMetadata(p *plan) string {
	if message := s.checkLabels(); message != "" {
		return message
	}
	if message := s.planDataplaneMode(p); message != "" {
		return message
	}
	p.addLabel(s.Pod, policy.InjectedLabel, string(s.options.Mode))
	p.addLabel(s.Pod, policy.IstioInjectKey, "false")
	p.addLabel(s.Pod, policy.IstioTLSModeLabel, "disabled")
	p.addAnnotation(s.Pod, policy.IstioInjectKey, "false")
	s.planConsul(p)
	if s.options.Mode != policy.Secret { // which adds no container
		p.addAnnotation(s.Pod, policy.DefaultContainerKey, s.Pod.Spec.Containers[s.edge].Name)
	}
	return ""
}

// planDataplaneMode opts an edge with a certificate of its own out of ztunnel.
func (s *subject) planDataplaneMode(p *plan) string {
	if v, ok := s.Pod.Labels[policy.IstioDataplaneLabel]; ok && v != "none" {
		return contradiction("label", policy.IstioDataplaneLabel, v, s.options.Mode)
	}
	if s.Namespace.Labels[policy.IstioDataplaneLabel] == "ambient" {
		p.addLabel(s.Pod, policy.IstioDataplaneLabel, "none")
	}
	return ""
}

// planConsul opts the pod out of Consul's injector, unless the user opts it in.
func (s *subject) planConsul(p *plan) {
	p.addAnnotation(s.Pod, policy.ConsulInjectKey, "false")
	if v := s.Pod.Annotations[policy.ConsulInjectKey]; IsTrue(v) {
		s.warn("two-meshes", "annotation %s is %q: Consul adds a proxy of its own to this pod", policy.ConsulInjectKey, v)
	}
}

// addLabel adds a label if the pod does not have it.
func (p *plan) addLabel(pod *corev1.Pod, key, value string) {
	if _, ok := pod.Labels[key]; !ok {
		p.labels = append(p.labels, keyValue{key, value})
	}
}

// setLabel adds a label, or replaces its value.
func (p *plan) setLabel(pod *corev1.Pod, key, value string) {
	if was, ok := pod.Labels[key]; ok && was != value {
		p.replacedLabels = append(p.replacedLabels, replacement{key, was, value})
		return
	}
	p.addLabel(pod, key, value)
}

// addAnnotation adds an annotation if the pod does not have it.
func (p *plan) addAnnotation(pod *corev1.Pod, key, value string) {
	if _, ok := pod.Annotations[key]; !ok {
		p.annotations = append(p.annotations, keyValue{key, value})
	}
}

// setAnnotation adds an annotation, or replaces its value.
func (p *plan) setAnnotation(pod *corev1.Pod, key, value string) {
	switch was, ok := pod.Annotations[key]; {
	case !ok:
		p.annotations = append(p.annotations, keyValue{key, value})
	case was != value:
		p.replacedAnnotations = append(p.replacedAnnotations, replacement{key, was, value})
	}
}
