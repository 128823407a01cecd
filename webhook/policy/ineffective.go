package policy

import (
	"fmt"
	"slices"
)

// certificateKeys are annotations of a pod or namespace about the certificate.
var certificateKeys = []string{DeliveryKey, CertDirKey, SecretNameKey, CertTTLKey, PublishKey, EnvoyKey}

// secretKeys are annotations of a namespace about its Secret.
var secretKeys = []string{SourceKey, ServiceAccountKey, TLSContextKey}

// sidecarKeys are annotations of a pod that only configure the sidecar.
var sidecarKeys = []string{
	EnvoyKey, IstioProxyImageKey, IstioProxyCPUKey, IstioProxyMemoryKey, IstioProxyCPULimitKey, IstioProxyMemLimitKey,
	IstioLogLevelKey, IstioAgentLogLevelKey, IstioStatusPortKey,
}

// IneffectiveKeys warns of annotations that are valid, but change nothing in
// combination with these options.
func IneffectiveKeys(podAnnotations map[string]string, ns Namespace, o Options) []Warning {
	var out []Warning
	warn := func(format string, args ...any) {
		out = append(out, Warning{"no-effect", fmt.Sprintf(format, args...)})
	}
	if v, ok := ns.Annotations[MirrorSecretKey]; ok && o.Source != Mirror {
		warn("namespace %s: annotation %s: %s has no effect because the source is %s; set %s: mirror, or remove the annotation", ns.Name, MirrorSecretKey, Quote(MirrorSecretKey, v), o.Source, SourceKey)
	}
	if v := ns.Annotations[EnvoyKey]; v == "false" && o.Mode == Istio {
		warn("namespace %s: annotation %s: %q has no effect because mode istio runs Istio's complete sidecar; remove the annotation", ns.Name, EnvoyKey, v)
	}
	if o.Mode == Ambient {
		for _, key := range slices.Concat(certificateKeys, secretKeys) {
			if v, ok := ns.Annotations[key]; ok && v != "false" {
				warn("namespace %s: annotation %s: %s has no effect because mode ambient has no certificate; remove the annotation", ns.Name, key, Quote(key, v))
			}
		}
	}
	if o.Mode != Secret && o.Mode != Ambient {
		return out
	}
	for _, key := range sidecarKeys {
		if v, ok := podAnnotations[key]; ok && v != "false" {
			warn("annotation %s: %s has no effect because mode %s adds no sidecar; remove the annotation", key, Quote(key, v), o.Mode)
		}
	}
	return out
}
