package inject

import (
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// planIstio plans mode istio: Istio's injector adds its sidecar, and annotations ask it
// to write certificate files and to capture no traffic.
func (s *subject) planIstio() (p plan, reason policy.Reason, message string) {
	if message := s.checkInjector(); message != "" {
		return p, policy.Conflict, message
	}
	location, message := s.locateCerts()
	if message != "" {
		return p, policy.Conflict, message
	}
	annotations, message := s.mergeIstioAnnotations(location)
	if message != "" {
		return p, policy.Conflict, message
	}
	if message := s.checkTTL(); message != "" {
		return p, policy.InvalidOverride, message
	}
	p.mounted = location.mounted
	p.params = s.istioParams(annotations.certDir, location.ownVolume)
	for _, check := range []func(*plan) string{s.checkNames, s.checkPorts, s.planIstioMetadata} {
		if message := check(&p); message != "" {
			return p, policy.Conflict, message
		}
	}
	p.setAnnotation(s.Pod, policy.IstioProxyConfigKey, annotations.proxyConfig)
	p.setAnnotation(s.Pod, policy.IstioUserVolumeMount, annotations.userVolumeMount)
	s.planEnv(&p)
	return p, "", ""
}

// istioParams returns the parameters of mode istio, which depends on one mesh setting,
// the CA's limit.
func (s *subject) istioParams(certDir string, ownVolume bool) patches.Params {
	return patches.Params{NoSidecar: true, CertsVolume: true, OwnCertsVolume: ownVolume, CertDir: certDir, CertTTL: s.requestedTTL()}
}

// checkInjector says why Istio's injector would not do what the annotations ask for, or
// returns "".
func (s *subject) checkInjector() string {
	if s.Pod.Spec.HostNetwork {
		return "the pod is on the host's network, where Istio's injector adds no sidecar; choose " + policy.ModeKey + ": sidecar, or set hostNetwork: false"
	}
	// The selectors of Istio's webhooks match "true" and "false" only.
	if v, ok := s.Pod.Labels[policy.IstioInjectKey]; ok && v != "true" {
		return contradiction("label", policy.IstioInjectKey, v, policy.Istio)
	}
	if _, notCalled := policy.InjectorRevision(s.Pod.Labels, s.Namespace); notCalled != "" {
		return notCalled
	}
	if message := s.checkTemplates(); message != "" {
		return message
	}
	injector, err := s.engine.injector(s.options.Revision)
	if err != nil {
		return err.Error()
	}
	// A template in a file is edited before any webhook runs. Otherwise an injector
	// that runs first must be called again, and the API server calls it again only
	// for a pod that it was called for.
	if injector.RunsFirst && !s.Template && (!injector.Reinvoked || !s.wasSelectedByInjector()) {
		return fmt.Sprintf("Istio's webhook configuration %s sorts before that of Isthmus, so its injector does not see the edit of Isthmus; give it a name that sorts after isthmus-, as Istio's chart does, or choose %s: sidecar", injector.Configuration, policy.ModeKey)
	}
	return ""
}

// sidecarTemplate is the template of Istio's injector that adds a sidecar with an agent
// that writes certificates and honours the annotations.
const sidecarTemplate = "sidecar"

// checkTemplates says that the pod chooses templates of Istio's injector that may add no
// such sidecar, or returns "".
func (s *subject) checkTemplates() string {
	v, ok := s.Pod.Annotations[policy.IstioTemplatesKey]
	if !ok {
		return ""
	}
	for template := range strings.SplitSeq(v, ",") {
		if strings.TrimSpace(template) != sidecarTemplate {
			return fmt.Sprintf("annotation %s is %s, and only the template %s is known to add a sidecar that writes certificates; remove the annotation, or choose %s: sidecar",
				policy.IstioTemplatesKey, policy.Quote(policy.IstioTemplatesKey, v), sidecarTemplate, policy.ModeKey)
		}
	}
	return ""
}

// wasSelectedByInjector reports whether the selectors of Istio's injector match the pod
// as it was before the injector changed it.
func (s *subject) wasSelectedByInjector() bool {
	revision, _ := policy.InjectorRevision(s.Pod.Labels, s.Namespace)
	return s.Pod.Labels[policy.IstioInjectKey] == "true" || revision != "" || s.Namespace.Labels[policy.IstioInjectionLabel] != ""
}

// checkTTL says that the CA does not grant the requested lifetime, or returns "".
func (s *subject) checkTTL() string {
	if s.options.CertTTL == 0 {
		return ""
	}
	mesh, err := s.engine.mesh(s.options.Revision)
	if err != nil {
		return err.Error()
	}
	return ttlProblem(s.options.CertTTL, time.Duration(mesh.MaxCertTTL))
}

// requestedTTL returns the lifetime that Istio's sidecar must request from the CA, zero
// if its default will do. istiod refuses a lifetime above its limit.
func (s *subject) requestedTTL() time.Duration {
	if s.options.CertTTL != 0 {
		return s.options.CertTTL
	}
	mesh, err := s.engine.mesh(s.options.Revision)
	if limit := time.Duration(mesh.MaxCertTTL); err == nil && limit > 0 && limit < patches.DefaultCertTTL {
		return limit
	}
	return 0
}

// planIstioMetadata marks the pod and opts it in to Istio's injector. It returns a
// message about a conflict, or "".
func (s *subject) planIstioMetadata(p *plan) string {
	if message := s.checkLabels(); message != "" {
		return message
	}
	if message := s.planDataplaneMode(p); message != "" {
		return message
	}
	p.addLabel(s.Pod, policy.InjectedLabel, string(policy.Istio))
	p.addLabel(s.Pod, policy.IstioInjectKey, "true")
	p.setLabel(s.Pod, policy.IstioTLSModeLabel, "disabled")
	// The vendors' charts and manifests set "false" to keep a sidecar away.
	p.setAnnotation(s.Pod, policy.IstioInjectKey, "true")
	s.planConsul(p)
	p.addAnnotation(s.Pod, policy.DefaultContainerKey, s.Pod.Spec.Containers[s.edge].Name)
	for _, key := range []string{policy.IstioInboundPortsKey, policy.IstioOutboundRangesKey} {
		p.addAnnotation(s.Pod, key, "")
		if v := s.Pod.Annotations[key]; v != "" {
			s.warn("captured", "annotation %s: %q makes Istio's Envoy capture traffic of the edge, which mode istio does not need; remove the annotation unless you want that", key, v)
		}
	}
	if level := s.Namespace.Labels[policy.PodSecurityEnforceLabel]; level == "restricted" || level == "baseline" {
		s.warn("needs-istio-cni", "namespace %s enforces Pod Security %q, and Istio's init container asks for NET_ADMIN: without istio-cni the pod is refused; %s: sidecar needs neither", s.Namespace.Name, level, policy.ModeKey)
	}
	return ""
}

// checkIstioAnnotations says why the annotations for Istio's sidecar cannot bring
// certificates, or returns "".
func (s *subject) checkIstioAnnotations() string {
	if message := s.checkTemplates(); message != "" {
		return message
	}
	location, message := s.locateCerts()
	if message == "" {
		_, message = s.mergeIstioAnnotations(location)
	}
	return message
}

// istioAnnotations are the annotations by which the pod configures Istio's sidecar.
type istioAnnotations struct {
	certDir                      string
	proxyConfig, userVolumeMount string
}

// mergeIstioAnnotations adds the settings of Isthmus to those of the user. What the user
// sets stays. The message describes a conflict.
func (s *subject) mergeIstioAnnotations(location certLocation) (out istioAnnotations, message string) {
	config, err := parseProxyConfig(s.Pod.Annotations[policy.IstioProxyConfigKey])
	if err != nil {
		return out, fmt.Sprintf("annotation %s: %v", policy.IstioProxyConfigKey, err)
	}
	out.certDir = location.dir
	dirSetting := policy.CertDirKey
	if output, isSet := config.metadata("OUTPUT_CERTS"); isSet {
		clean, problem := policy.ParseCertDir(output)
		switch {
		case output == "":
			return out, fmt.Sprintf("annotation %s sets OUTPUT_CERTS to \"\", with which Istio's agent writes no certificates; remove it, or set it to %q", policy.IstioProxyConfigKey, location.dir)
		case problem != "":
			return out, fmt.Sprintf("annotation %s sets OUTPUT_CERTS to %q: %s", policy.IstioProxyConfigKey, output, problem)
		case clean != location.dir && (location.mounted || s.options.CertDirSet):
			return out, fmt.Sprintf("annotation %s sets OUTPUT_CERTS to %q, but the certificate directory is %q; make them agree", policy.IstioProxyConfigKey, output, location.dir)
		}
		out.certDir, dirSetting = clean, "OUTPUT_CERTS in annotation "+policy.IstioProxyConfigKey
	}
	if !location.mounted {
		if message := s.mountInTheWay(out.certDir, dirSetting); message != "" {
			return out, message
		}
	}
	edge := &s.Pod.Spec.Containers[s.edge]
	if dir := FindEnv(edge, SecretDirEnv); dir != nil && path.Clean(dir.Value) != out.certDir {
		return out, fmt.Sprintf("container %s sets %s to %q, but the certificate directory is %q; make them agree", edge.Name, SecretDirEnv, dir.Value, out.certDir)
	}
	config.setMetadata("OUTPUT_CERTS", out.certDir)
	config.setMetadata("ISTIO_META_DNS_CAPTURE", "false")
	if ttl := s.requestedTTL(); ttl != 0 {
		config.setMetadata("SECRET_TTL", ttl.String())
	}
	config.holdApplication()
	if out.proxyConfig, err = config.text(); err != nil {
		return out, fmt.Sprintf("annotation %s: %v", policy.IstioProxyConfigKey, err)
	}
	if output, err := effectiveOutput(out.proxyConfig); err != nil || path.Clean(output) != out.certDir {
		return out, fmt.Sprintf("annotation %s: Istio reads OUTPUT_CERTS as %q, but the certificate directory is %q; write the annotation in plain YAML, with each name once", policy.IstioProxyConfigKey, output, out.certDir)
	}
	if problem := checkUserVolume(s.Pod.Annotations[policy.IstioUserVolumeKey], patches.CertsVolume); problem != "" {
		return out, fmt.Sprintf("annotation %s: %s", policy.IstioUserVolumeKey, problem)
	}
	if out.userVolumeMount, err = mergeMount(s.Pod.Annotations[policy.IstioUserVolumeMount], patches.CertsVolume, out.certDir); err != nil {
		return out, fmt.Sprintf("annotation %s: %v", policy.IstioUserVolumeMount, err)
	}
	return out, ""
}
