package policy

import (
	"fmt"
	"slices"
)

// Modes lists the modes of the API.
func Modes() []Mode { return slices.Clone(modes) }

// HasCertificate reports whether the edge itself holds a certificate. In mode
// ambient ztunnel does.
func (m Mode) HasCertificate() bool { return m != Ambient }

// noAgent says why there is nothing to publish.
func (m Mode) noAgent() string {
	if m == Istio {
		return "mode istio leaves the agent to Istio, and Isthmus adds none to the pod"
	}
	return "mode " + string(m) + " has no agent in the pod"
}

// settleMode holds the other options against the mode.
func (r *resolver) settleMode(o *Options, labels map[string]string) {
	switch o.Mode {
	case Istio:
		o.Revision, _ = InjectorRevision(labels, r.ns)
		if v, ok := r.pod[EnvoyKey]; ok && v == "false" {
			r.podProblem(EnvoyKey, v, "mode istio runs all of Istio's sidecar, Envoy with it; remove it, or choose "+ModeKey+": sidecar")
		}
		o.Envoy = true
	case Secret:
		o.Envoy = false
	case Ambient:
		for _, key := range certificateKeys {
			if v, ok := r.pod[key]; ok && v != "false" {
				r.podProblem(key, v, "mode ambient gives the pod neither certificate nor sidecar; remove it, or choose another mode")
			}
		}
		o.Delivery, o.Envoy, o.Publish, o.TLSContext, o.CertTTL = "", false, false, false, 0
	}
}

// certificateKeys are annotations of pod or namespace about the certificate.
var certificateKeys = []string{DeliveryKey, CertDirKey, SecretNameKey, CertTTLKey, PublishKey, EnvoyKey}

// secretKeys are annotations of a namespace about its Secret.
var secretKeys = []string{SourceKey, ServiceAccountKey, TLSContextKey}

// sidecarKeys are annotations of a pod that steer the sidecar alone.
var sidecarKeys = []string{
	EnvoyKey, IstioProxyImageKey, IstioProxyCPUKey, IstioProxyMemoryKey, IstioProxyCPULimitKey, IstioProxyMemLimitKey,
	IstioLogLevelKey, IstioAgentLogLevelKey, IstioStatusPortKey,
}

// Ineffective warns of annotations that are known and in their place, and
// change nothing beside these options.
func Ineffective(annotations map[string]string, ns Namespace, o Options) []Warning {
	var out []Warning
	warn := func(format string, args ...any) {
		out = append(out, Warning{"no-effect", fmt.Sprintf(format, args...)})
	}
	if v, ok := ns.Annotations[MirrorSecretKey]; ok && o.Source != Mirror {
		warn("annotation of namespace %s %s: %q has no effect, for the source is %s; set %s: mirror, or remove it", ns.Name, MirrorSecretKey, v, o.Source, SourceKey)
	}
	if v := ns.Annotations[EnvoyKey]; v == "false" && o.Mode == Istio {
		warn("annotation of namespace %s %s: %q has no effect, for mode istio runs all of Istio's sidecar; remove it", ns.Name, EnvoyKey, v)
	}
	if o.Mode == Ambient {
		for _, key := range slices.Concat(certificateKeys, secretKeys) {
			if v, ok := ns.Annotations[key]; ok && v != "false" {
				warn("annotation of namespace %s %s: %q has no effect, for mode ambient has no certificate; remove it", ns.Name, key, v)
			}
		}
	}
	if o.Mode != Secret && o.Mode != Ambient {
		return out
	}
	for _, key := range sidecarKeys {
		if v, ok := annotations[key]; ok && v != "false" {
			warn("annotation %s: %q has no effect, for mode %s adds no sidecar; remove it", key, v, o.Mode)
		}
	}
	return out
}
