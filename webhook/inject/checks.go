package inject

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The checks return a message about a conflict between the pod and the plan, or "".

// checkNames finds containers and volumes of the names that Isthmus adds. The API server
// would merge or refuse them.
func (s *subject) checkNames(p *plan) string {
	spec := &s.Pod.Spec
	names := []string{patches.SidecarName, patches.PublisherName}
	switch {
	case p.params.CertsVolume && s.istioRanFirst():
		names = nil
	case p.params.CertsVolume:
		names = names[:1] // Istio's injector adds it
	case p.params.NoSidecar:
		names = nil
	case p.params.PublisherImage == "":
		names = names[:1]
	}
	for _, name := range names {
		for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
			if i := containerIndex(list, name); i >= 0 {
				return fmt.Sprintf("the pod has a container %s (image %s) and Isthmus adds one of that name; rename it", name, list[i].Image)
			}
		}
	}
	for _, v := range s.engine.template.VolumeNames(p.params) {
		if FindVolume(s.Pod, v) != nil {
			return fmt.Sprintf("the pod has a volume %s and Isthmus adds one of that name; rename it", v)
		}
	}
	return ""
}

// checkRestartPolicy finds pods that are meant to complete. The publisher is an ordinary
// container that keeps running, so such a pod would never complete.
func (s *subject) checkRestartPolicy(p *plan) string {
	if restarts := s.Pod.Spec.RestartPolicy; p.params.PublisherImage != "" && (restarts == corev1.RestartPolicyNever || restarts == corev1.RestartPolicyOnFailure) {
		return fmt.Sprintf(`%s is "true", but the pod's restartPolicy is %s: such a pod is meant to complete, but the publisher keeps running; set %s: "false"`, policy.PublishKey, restarts, policy.PublishKey)
	}
	return ""
}

// checkPorts finds containers that listen on a port of the sidecar. All containers share
// the pod's network, and the sidecar's ports are TCP ports.
func (s *subject) checkPorts(*plan) string {
	status := s.statusPort()
	taken := []int32{status}
	if s.options.Envoy {
		taken = append(taken, policy.EnvoyPorts()...)
	}
	for n, list := range [][]corev1.Container{s.Pod.Spec.Containers, s.Pod.Spec.InitContainers} {
		for i := range list {
			c := &list[i]
			if n == 1 && c.RestartPolicy == nil {
				continue // ends before the sidecar starts
			}
			if s.options.Mode == policy.Istio && c.Name == patches.SidecarName {
				continue // Istio's own
			}
			for _, port := range c.Ports {
				if port.Protocol != "" && port.Protocol != corev1.ProtocolTCP || !slices.Contains(taken, port.ContainerPort) {
					continue
				}
				if port.ContainerPort == status {
					return fmt.Sprintf("container %s listens on port %d, which the agent needs; give the agent another one with annotation %s", c.Name, status, policy.IstioStatusPortKey)
				}
				wayOut := policy.EnvoyKey + `: "false"`
				if s.options.Mode == policy.Istio {
					wayOut = policy.ModeKey + ": sidecar"
				}
				return fmt.Sprintf("container %s listens on port %d, which the sidecar's Envoy needs; let it listen on another one, or set %s", c.Name, port.ContainerPort, wayOut)
			}
		}
	}
	return ""
}

// statusPort returns the port of the agent's probes.
func (s *subject) statusPort() int32 {
	return patches.Params{Overrides: patches.Overrides{StatusPort: s.proxy.StatusPort}}.StatusPort()
}

// checkHostNetwork finds pods that cannot resolve istiod's name. The host's network is
// allowed otherwise, because no traffic is captured.
func (s *subject) checkHostNetwork(p *plan) string {
	dns := s.Pod.Spec.DNSPolicy
	if !s.Pod.Spec.HostNetwork {
		if dns == corev1.DNSDefault || dns == corev1.DNSNone {
			s.warn("dns-policy", "dnsPolicy is %q: unless istiod's name resolves there, the edge will wait for its certificate", dns)
		}
		return ""
	}
	if dns == "" { // a template in a file, before the API server's defaults
		return fmt.Sprintf("the pod is on the host's network and sets no dnsPolicy, and the default %s does not resolve istiod's name there; set dnsPolicy: %s", corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet)
	}
	if dns != corev1.DNSClusterFirstWithHostNet {
		return fmt.Sprintf("the pod is on the host's network with dnsPolicy %q, so istiod's name would not resolve; set dnsPolicy: %s", dns, corev1.DNSClusterFirstWithHostNet)
	}
	s.warn("host-network", "the pod is on the host's network: the agent takes port %d of the node, so a node runs one such edge at most", p.params.StatusPort())
	return ""
}

// checkLabels finds labels that contradict those of Isthmus.
func (s *subject) checkLabels() string {
	if v, ok := s.Pod.Labels[policy.InjectedLabel]; ok {
		return fmt.Sprintf("label %s (%q) is written by Isthmus; remove it", policy.InjectedLabel, v)
	}
	if v, ok := s.Pod.Labels[policy.IstioTLSModeLabel]; ok && v != "disabled" && !s.isSetByIstio(v) {
		return fmt.Sprintf("label %s is %q, which makes peers send mTLS to ports where mode %s terminates none; remove it", policy.IstioTLSModeLabel, v, s.options.Mode)
	}
	return ""
}

// isSetByIstio reports whether Istio's injector, running before Isthmus, has set the
// label to its default. Mode istio replaces it.
func (s *subject) isSetByIstio(tlsMode string) bool {
	return s.options.Mode == policy.Istio && tlsMode == "istio" && s.istioRanFirst()
}

func contradiction(kind, key, value string, mode policy.Mode) string {
	return fmt.Sprintf("%s %s is %q, which contradicts %s %s; remove one of them", kind, key, value, policy.ModeKey, mode)
}
