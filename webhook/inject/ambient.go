package inject

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// planAmbient plans mode ambient: ztunnel encrypts what the edge sends, and does not
// capture what clients send to the edge. Nothing is mounted.
func (s *subject) planAmbient() (p plan, message string) {
	p.mounted = true
	p.params = patches.Params{NoSidecar: true}
	labels, annotations := s.Pod.Labels, s.Pod.Annotations
	if s.Pod.Spec.HostNetwork {
		return p, "the pod is on the host's network, where ztunnel captures nothing; choose " + policy.ModeKey + ": sidecar, or set hostNetwork: false"
	}
	if v, ok := labels[policy.IstioDataplaneLabel]; ok && v != "ambient" {
		return p, contradiction("label", policy.IstioDataplaneLabel, v, policy.Ambient)
	}
	if v, ok := annotations[policy.AmbientInboundKey]; ok && v != "true" {
		return p, fmt.Sprintf("annotation %s is %q, so ztunnel would capture what clients outside the mesh send, and refuse it where mutual TLS is STRICT; remove it", policy.AmbientInboundKey, v)
	}
	if message := s.checkLabels(); message != "" {
		return p, message
	}
	p.addLabel(s.Pod, policy.InjectedLabel, string(policy.Ambient))
	p.addLabel(s.Pod, policy.IstioDataplaneLabel, "ambient")
	p.addLabel(s.Pod, policy.IstioInjectKey, "false")
	p.addAnnotation(s.Pod, policy.IstioInjectKey, "false")
	p.addAnnotation(s.Pod, policy.AmbientInboundKey, "true")
	s.planConsul(&p)
	if v, ok := labels[policy.IstioIngressWaypointLabel]; ok {
		s.warn("ingress-waypoint", "label %s: %q has no effect on a pod: it is for Services and namespaces, and only Istio's own gateways read it; the edge's calls go through the waypoint that a backend names with %s",
			policy.IstioIngressWaypointLabel, v, policy.IstioUseWaypointLabel)
	}
	if mesh, err := s.engine.mesh(s.options.Revision); err == nil {
		if agent, _ := patches.AgentFromImage(mesh.ProxyImage); !agent.Supports(patches.NoInboundCapture) {
			s.warn("bypass-too-old", "annotation %s takes effect from Istio %s on, and the mesh's Istio is older (%s): if mutual TLS is STRICT, ztunnel refuses clients outside the mesh",
				policy.AmbientInboundKey, patches.SupportedSince(patches.NoInboundCapture), mesh.ProxyImage)
		}
	}
	return p, ""
}

// warnAmbientBackends warns about an edge with a certificate whose backends are in
// ambient mode.
func (s *subject) warnAmbientBackends() {
	if !s.options.Mode.HasCertificate() || s.Namespace.Labels[policy.IstioDataplaneLabel] != "ambient" {
		return
	}
	s.warn("ambient-backends", "namespace %s is in ambient mode (label %s): ztunnel does not terminate mutual TLS on a backend's own port, so a Mapping to such a backend must not originate it; with %s: ambient ztunnel encrypts the edge's calls",
		s.Namespace.Name, policy.IstioDataplaneLabel, policy.ModeKey)
}
