package inject

import (
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// warnAgentVersion warns if the agent that the pod gets is of unknown or unsupported
// version.
func (s *subject) warnAgentVersion(p plan) {
	image := s.agentImage(p)
	if image == "" {
		return
	}
	switch agent, known := patches.AgentFromImage(image); {
	case !known:
		s.warn("proxy-version-unknown", "the tag of image %s is not a version of Istio, so its agent is treated as the current version; use an image with a version as its tag, such as %s", image, patches.DefaultProxyImage)
	case agent.TooOld():
		s.warn("proxy-too-old", "image %s is of Istio %s, and the oldest that Isthmus supports is %s: Isthmus is not tested with its agent; upgrade Istio, or choose another image with %s",
			image, agent.Version, patches.OldestIstio, policy.IstioProxyImageKey)
	}
}

// agentImage returns the image of the agent in the pod: that of the sidecar that
// Isthmus or Istio's injector adds. It is empty if there is no agent, or if the image
// is unknown.
func (s *subject) agentImage(p plan) string {
	switch s.options.Mode {
	case policy.Sidecar:
		return p.params.Image()
	case policy.Istio:
		if s.proxy.Image != "" {
			return s.proxy.Image
		}
		if mesh, err := s.engine.mesh(s.options.Revision); err == nil {
			return mesh.ProxyImage
		}
	}
	return ""
}
