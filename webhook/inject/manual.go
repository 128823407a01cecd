package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// SecretDirEnv is the variable that tells Emissary, Ambassador and Edge Stack the
// directory of the certificate files.
const SecretDirEnv = "AMBASSADOR_ISTIO_SECRET_DIR"

// manualIntegration is the integration by hand that a pod has.
type manualIntegration struct {
	// evidence lists what was found, each with its value. It is empty if the pod is
	// not integrated by hand.
	evidence []string
	// missing lists what the integration needs in addition to work.
	missing []string
	// forInjector is true if the integration leaves the sidecar to Istio's injector,
	// and nothing in it conflicts with mode istio.
	forInjector bool
}

// findManualIntegration looks for an integration by hand. includeInboundPorts: "" is no
// evidence, because Kong's chart sets it by default.
func findManualIntegration(pod *corev1.Pod, ns policy.Namespace, edge int) manualIntegration {
	var m manualIntegration
	found := func(format string, args ...any) { m.evidence = append(m.evidence, fmt.Sprintf(format, args...)) }
	require := func(ok bool, need string) {
		if !ok {
			m.missing = append(m.missing, need)
		}
	}
	c := &pod.Spec.Containers[edge]

	sidecar := FindSidecar(pod)
	switch {
	case sidecar != nil && pod.Annotations[policy.IstioStatusKey] != "":
		found("container %s runs %s, added by Istio's injector (annotation %s)", sidecar.Name, sidecar.Image, policy.IstioStatusKey)
	case sidecar != nil:
		found("container %s runs %s", sidecar.Name, sidecar.Image)
	}
	setsOutputCerts := strings.Contains(pod.Annotations[policy.IstioProxyConfigKey], "OUTPUT_CERTS")
	if setsOutputCerts {
		found("annotation %s sets OUTPUT_CERTS", policy.IstioProxyConfigKey)
	}
	mountsCerts := strings.Contains(pod.Annotations[policy.IstioUserVolumeMount], patches.CertsVolume)
	if mountsCerts {
		found("annotation %s names %s", policy.IstioUserVolumeMount, patches.CertsVolume)
	}
	m.forInjector = sidecar == nil
	volume := FindVolume(pod, patches.CertsVolume)
	if volume != nil && volume.EmptyDir == nil {
		m.forInjector = false
		found("volume %s is not an emptyDir", patches.CertsVolume)
	}
	dir := FindEnv(c, SecretDirEnv)
	if dir != nil {
		found("container %s sets %s=%q", c.Name, SecretDirEnv, dir.Value)
	}
	asksInjector := false
	for _, v := range []struct{ kind, value string }{
		{"label", pod.Labels[policy.IstioInjectKey]}, {"annotation", pod.Annotations[policy.IstioInjectKey]},
	} {
		if IsTrue(v.value) {
			asksInjector = true
			found("%s %s is %q", v.kind, policy.IstioInjectKey, v.value)
		}
	}
	if len(m.evidence) == 0 {
		return m
	}

	require(dir != nil, fmt.Sprintf("%s in container %s", SecretDirEnv, c.Name))
	require(FindMount(c, patches.CertsVolume) != nil, fmt.Sprintf("a mount of volume %s in container %s", patches.CertsVolume, c.Name))
	if sidecar != nil {
		require(FindEnv(sidecar, "OUTPUT_CERTS") != nil, "OUTPUT_CERTS in container "+sidecar.Name)
		return m
	}
	require(setsOutputCerts, "proxyMetadata.OUTPUT_CERTS in annotation "+policy.IstioProxyConfigKey)
	require(mountsCerts, "annotation "+policy.IstioUserVolumeMount)
	if volume == nil && !strings.Contains(pod.Annotations[policy.IstioUserVolumeKey], patches.CertsVolume) {
		require(false, "volume "+patches.CertsVolume)
	}
	for _, key := range []string{policy.IstioInboundPortsKey, policy.IstioOutboundRangesKey} {
		_, ok := pod.Annotations[key]
		require(ok, fmt.Sprintf("annotation %s: \"\"", key))
	}
	require(asksInjector || isSelectedByInjector(pod, ns), fmt.Sprintf("label %s: \"true\"", policy.IstioInjectKey))
	return m
}

// checkManualIntegration returns the decision on a pod that is integrated by hand. It
// returns nil if the pod is not, or if mode istio completes the integration.
func (s *subject) checkManualIntegration() *Result {
	m := findManualIntegration(s.Pod, s.Namespace, s.edge)
	if len(m.evidence) == 0 {
		return nil
	}
	if s.options.Mode == policy.Istio && s.istioRanFirst() {
		return nil
	}
	if s.options.Mode == policy.Istio && m.forInjector {
		if len(m.missing) > 0 || s.checkIstioAnnotations() != "" {
			return nil // planIstio completes the integration, or says why it cannot work
		}
		s.warn(string(policy.ManualIntegration), "left unchanged, because it is prepared for Istio's injector by hand and is complete; isthmus adopt turns it into a plain manifest")
		return &Result{Reason: policy.ManualIntegration, Message: "the pod is prepared for Istio's injector by hand"}
	}
	r := s.leaveManualIntegration(m)
	return &r
}

// istioRanFirst reports whether Istio's injector has run before Isthmus, because the
// name of its configuration sorts first. checkInjector decides whether that is a
// problem.
func (s *subject) istioRanFirst() bool {
	if s.Pod.Annotations[policy.IstioStatusKey] == "" {
		return false
	}
	injector, err := s.engine.injector(s.options.Revision)
	return err == nil && injector.RunsFirst
}

// leaveManualIntegration denies a pod that is opted in itself, and leaves any other pod
// unchanged.
func (s *subject) leaveManualIntegration(m manualIntegration) Result {
	evidence := strings.Join(m.evidence, "; ")
	if s.optIn == policy.OptedInByPod {
		return denied(policy.Conflict, fmt.Sprintf("%s is \"true\" with %s %s, but the pod is integrated with Istio by hand: %s; remove one of the two (isthmus adopt rewrites the manifest)",
			policy.InjectKey, policy.ModeKey, s.options.Mode, evidence))
	}
	s.warn(string(policy.ManualIntegration), "left unchanged, because it is integrated with Istio by hand: %s; isthmus adopt turns it into a plain manifest", evidence)
	if len(m.missing) > 0 {
		s.warn("integration-incomplete", "the integration by hand lacks %s", strings.Join(m.missing, ", "))
	}
	return Result{Reason: policy.ManualIntegration, Message: "the pod is integrated with Istio by hand: " + evidence}
}

// isSelectedByInjector reports whether Istio's injector injects a pod that does not ask
// for it: its namespace or a revision selects it, and the pod does not opt out.
func isSelectedByInjector(pod *corev1.Pod, ns policy.Namespace) bool {
	for _, m := range []map[string]string{pod.Labels, pod.Annotations} {
		if v, ok := m[policy.IstioInjectKey]; ok && !IsTrue(v) {
			return false
		}
	}
	revision, notCalled := policy.InjectorRevision(pod.Labels, ns)
	return notCalled == "" && (revision != "" || ns.Labels[policy.IstioInjectionLabel] != "")
}

// FindSidecar returns the container that runs Istio's sidecar, or nil. It recognises the
// container by its name, which ztunnel's container has too, or by Istio's image if it
// writes certificates.
func FindSidecar(pod *corev1.Pod) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			c := &list[i]
			if c.Name != patches.SidecarName && !WritesCertificates(c) {
				continue
			}
			if slices.Contains(c.Args, "sidecar") || slices.Contains(c.Command, "sidecar") || FindEnv(c, "OUTPUT_CERTS") != nil || isProxyImage(c.Image) {
				return c
			}
		}
	}
	return nil
}

// WritesCertificates reports whether a container of any name runs Istio's agent and
// writes certificate files. The init container of Istio's injector, which runs the same
// image for iptables and has the sidecar's environment, does not.
func WritesCertificates(c *corev1.Container) bool {
	return isProxyImage(c.Image) && FindEnv(c, "OUTPUT_CERTS") != nil && !slices.Contains(c.Args, "istio-iptables")
}

func isProxyImage(image string) bool {
	_, name, found := strings.Cut("/"+image, "/proxyv2")
	return found && (name == "" || name[0] == ':' || name[0] == '@' || name[0] == '-')
}

// IsTrue reads a boolean as Istio's injector does (pkg/kube/inject).
func IsTrue(v string) bool {
	switch strings.ToLower(v) {
	case "y", "yes", "true", "on":
		return true
	}
	return false
}
