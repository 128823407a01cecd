package inject

import (
	"fmt"
	"path"
	"time"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// planIstio plans mode istio: Istio's injector adds its sidecar, and the pod asks
// it for certificate files and for no capture of traffic.
func (s *subject) planIstio() (p plan, reason policy.Reason, message string) {
	if message := s.checkInjector(); message != "" {
		return p, policy.Conflict, message
	}
	certDir, own, mounted, message := s.certDir()
	if message != "" {
		return p, policy.Conflict, message
	}
	settings, message := s.proxySettings(certDir, mounted)
	if message != "" {
		return p, policy.Conflict, message
	}
	if message := s.checkTTL(); message != "" {
		return p, policy.InvalidOverride, message
	}
	p.mounted = mounted
	p.params = s.istioParams(settings.certDir, own)
	for _, check := range []func(*plan) string{s.checkNames, s.planIstioMetadata} {
		if message := check(&p); message != "" {
			return p, policy.Conflict, message
		}
	}
	p.overwrite(s.Pod, policy.IstioProxyConfigKey, settings.config)
	p.overwrite(s.Pod, policy.IstioUserVolumeMount, settings.mounts)
	s.planEnv(&p)
	return p, "", ""
}

// istioParams are those of mode istio: of the mesh it needs the CA's limit alone.
func (s *subject) istioParams(certDir string, own bool) patches.Params {
	return patches.Params{NoSidecar: true, CertsVolume: true, OwnCertsVolume: own, CertDir: certDir, CertTTL: s.lifetime()}
}

// checkInjector says why Istio's injector would not give the pod what we ask
// for.
func (s *subject) checkInjector() string {
	if s.Pod.Spec.HostNetwork {
		return "the pod is on the host's network, where Istio's injector adds no sidecar; choose " + policy.ModeKey + ": sidecar, or set hostNetwork: false"
	}
	// Istio's selectors know "true" and "false" alone.
	if v, ok := s.Pod.Labels[policy.IstioInjectKey]; ok && v != "true" {
		return contradiction("label", policy.IstioInjectKey, v, policy.Istio)
	}
	if _, never := policy.InjectorRevision(s.Pod.Labels, s.Namespace); never != "" {
		return never
	}
	injector, err := s.engine.injector(s.options.Revision)
	if err != nil {
		return err.Error()
	}
	// In a file our edit is there before anybody is called. Else one that runs first
	// has to be called again, which it only is for a pod that it was called for.
	if injector.RunsFirst && !s.Template && (!injector.Reinvoked || !s.wasCalled()) {
		return fmt.Sprintf("Istio's webhook configuration %s sorts before that of Isthmus, so its injector does not see what Isthmus asks of it; give it a name that sorts after isthmus-, as Istio's chart does, or choose %s: sidecar", injector.Configuration, policy.ModeKey)
	}
	return ""
}

// wasCalled reports whether the selectors of Istio's injector match the pod as it
// came, whatever the injector made of it.
func (s *subject) wasCalled() bool {
	revision, _ := policy.InjectorRevision(s.Pod.Labels, s.Namespace)
	return s.Pod.Labels[policy.IstioInjectKey] == "true" || revision != "" || s.Namespace.Labels[policy.IstioInjectionLabel] != ""
}

// checkTTL says that the CA does not grant the lifetime that is asked for.
func (s *subject) checkTTL() string {
	if s.options.CertTTL == 0 {
		return ""
	}
	mesh, err := s.engine.mesh(s.options.Revision)
	if err != nil {
		return err.Error()
	}
	return tooLong(s.options.CertTTL, time.Duration(mesh.MaxCertTTL))
}

// lifetime is what Istio's sidecar has to be told to ask of the CA; zero where
// its own default will do. istiod refuses a lifetime above its limit.
func (s *subject) lifetime() time.Duration {
	if s.options.CertTTL != 0 {
		return s.options.CertTTL
	}
	mesh, err := s.engine.mesh(s.options.Revision)
	if limit := time.Duration(mesh.MaxCertTTL); err == nil && limit > 0 && limit < patches.DefaultCertTTL {
		return limit
	}
	return 0
}

func (s *subject) planIstioMetadata(p *plan) string {
	if message := s.checkMarker(); message != "" {
		return message
	}
	if message := s.planDataplane(p); message != "" {
		return message
	}
	p.mark(s.Pod, policy.Istio)
	p.label(s.Pod, policy.IstioInjectKey, "true")
	p.relabel(s.Pod, policy.IstioTLSModeLabel, "disabled")
	// The vendors' charts and manifests say "false", and mean their own sidecar.
	p.overwrite(s.Pod, policy.IstioInjectKey, "true")
	s.planConsul(p)
	p.annotate(s.Pod, policy.DefaultContainerKey, s.Pod.Spec.Containers[s.edge].Name)
	for _, key := range []string{policy.IstioInboundPortsKey, policy.IstioOutboundRangesKey} {
		p.annotate(s.Pod, key, "")
		if v := s.Pod.Annotations[key]; v != "" {
			s.warn("captured", "annotation %s: %q has Istio's Envoy capture traffic of the edge, which mode istio does without; remove it, unless that is wanted", key, v)
		}
	}
	if level := s.Namespace.Labels[policy.PodSecurityEnforceLabel]; level == "restricted" || level == "baseline" {
		s.warn("needs-istio-cni", "namespace %s enforces Pod Security %q, and Istio's init container asks for NET_ADMIN: without istio-cni the pod is refused; %s: sidecar needs neither", s.Namespace.Name, level, policy.ModeKey)
	}
	return ""
}

// proxySettings are what the pod asks of Istio's sidecar.
type proxySettings struct {
	certDir string
	// config is proxy.istio.io/config, mounts sidecar.istio.io/userVolumeMount.
	config, mounts string
}

// proxySettings merges what we ask into what the user asks; what they set stays.
func (s *subject) proxySettings(certDir string, mounted bool) (out proxySettings, message string) {
	config, err := parseProxyConfig(s.Pod.Annotations[policy.IstioProxyConfigKey])
	if err != nil {
		return out, fmt.Sprintf("annotation %s: %v", policy.IstioProxyConfigKey, err)
	}
	out.certDir = certDir
	if theirs := config.metadata("OUTPUT_CERTS"); theirs != "" {
		clean, wrong := policy.CertDir(theirs)
		switch {
		case wrong != "":
			return out, fmt.Sprintf("annotation %s sets OUTPUT_CERTS to %q: %s", policy.IstioProxyConfigKey, theirs, wrong)
		case clean != certDir && (mounted || s.options.CertDirSet):
			return out, fmt.Sprintf("annotation %s sets OUTPUT_CERTS to %q, but the certificate directory is %q; make them agree", policy.IstioProxyConfigKey, theirs, certDir)
		}
		out.certDir = clean
	}
	edge := &s.Pod.Spec.Containers[s.edge]
	if dir := FindEnv(edge, SecretDirEnv); dir != nil && path.Clean(dir.Value) != out.certDir {
		return out, fmt.Sprintf("container %s sets %s to %q, but the certificate directory is %q; make them agree", edge.Name, SecretDirEnv, dir.Value, out.certDir)
	}
	config.setMetadata("OUTPUT_CERTS", out.certDir)
	config.setMetadata("ISTIO_META_DNS_CAPTURE", "false")
	if ttl := s.lifetime(); ttl != 0 {
		config.setMetadata("SECRET_TTL", ttl.String())
	}
	config.hold()
	if out.config, err = config.text(); err != nil {
		return out, fmt.Sprintf("annotation %s: %v", policy.IstioProxyConfigKey, err)
	}
	if out.mounts, err = mergeMount(s.Pod.Annotations[policy.IstioUserVolumeMount], patches.CertsVolume, out.certDir); err != nil {
		return out, fmt.Sprintf("annotation %s: %v", policy.IstioUserVolumeMount, err)
	}
	return out, ""
}
