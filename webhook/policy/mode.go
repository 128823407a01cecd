package policy

import "slices"

// Mode is how a pod gets its identity.
type Mode string

// The modes of the API.
const (
	// Sidecar runs Istio's agent beside the edge, by default without Envoy.
	Sidecar Mode = "sidecar"
	// Istio prepares the pod for the sidecar that Istio's own injector adds.
	Istio Mode = "istio"
	// Secret adds no container: the controller publishes the certificate in a
	// Secret.
	Secret Mode = "secret"
	// Ambient leaves the traffic to ztunnel; the pod has no certificate.
	Ambient Mode = "ambient"
)

var modes = []Mode{Sidecar, Istio, Secret, Ambient}

// Modes lists the modes of the API.
func Modes() []Mode { return slices.Clone(modes) }

// Known reports whether the mode is one of the API's.
func (m Mode) Known() bool { return slices.Contains(modes, m) }

// HasCertificate reports whether the edge itself holds a certificate. In mode
// ambient ztunnel holds it instead.
func (m Mode) HasCertificate() bool { return m != Ambient }

// noAgentReason says why the pod has no agent of Isthmus that could publish. It is
// meaningful for every mode but sidecar.
func (m Mode) noAgentReason() string {
	if m == Istio {
		return "mode istio uses Istio's own agent, and Isthmus adds none to the pod"
	}
	return "mode " + string(m) + " has no agent in the pod"
}

// applyMode adjusts the other options to the mode, and reports annotations of the
// pod that contradict the mode.
func (r *resolver) applyMode(o *Options, podLabels map[string]string) {
	switch o.Mode {
	case Istio:
		o.Revision, _ = InjectorRevision(podLabels, r.ns)
		if v, ok := r.podAnnotations[EnvoyKey]; ok && v == "false" {
			r.reportPod(EnvoyKey, v, "mode istio runs Istio's complete sidecar, including Envoy; remove the annotation, or set "+ModeKey+": sidecar")
		}
		o.Envoy = true
	case Secret:
		o.Envoy = false
	case Ambient:
		for _, key := range certificateKeys {
			if v, ok := r.podAnnotations[key]; ok && v != "false" {
				r.reportPod(key, v, "mode ambient gives the pod neither certificate nor sidecar; remove the annotation, or choose another mode")
			}
		}
		o.Delivery, o.Envoy, o.Publish, o.TLSContext, o.CertTTL = "", false, false, "", 0
	}
}
