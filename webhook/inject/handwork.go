package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// SecretDirEnv is where Emissary, Ambassador and Edge Stack read certificate
// files from.
const SecretDirEnv = "AMBASSADOR_ISTIO_SECRET_DIR"

// handiwork is what a pod brings of an Istio integration of its own.
type handiwork struct {
	// signs say what was found, with its value.
	signs []string
	// missing says what an integration like this one also needs.
	missing []string
	// isForIstio is true when it leaves the sidecar to Istio's injector and
	// nothing of it stands in the way of mode istio.
	isForIstio bool
}

// handwork looks for an integration by hand. Kong's chart sets
// includeInboundPorts "" by default, so that is no sign.
func handwork(pod *corev1.Pod, ns policy.Namespace, edge int) handiwork {
	var h handiwork
	sign := func(format string, args ...any) { h.signs = append(h.signs, fmt.Sprintf(format, args...)) }
	need := func(ok bool, what string) {
		if !ok {
			h.missing = append(h.missing, what)
		}
	}
	c := &pod.Spec.Containers[edge]

	proxy := FindSidecar(pod)
	switch {
	case proxy != nil && pod.Annotations[policy.IstioStatusKey] != "":
		sign("container %s runs %s, put there by Istio's injector (annotation %s)", proxy.Name, proxy.Image, policy.IstioStatusKey)
	case proxy != nil:
		sign("container %s runs %s", proxy.Name, proxy.Image)
	}
	config := pod.Annotations[policy.IstioProxyConfigKey]
	asksOutput := strings.Contains(config, "OUTPUT_CERTS")
	if asksOutput {
		sign("annotation %s sets OUTPUT_CERTS", policy.IstioProxyConfigKey)
	}
	userMount := pod.Annotations[policy.IstioUserVolumeMount]
	asksMount := strings.Contains(userMount, patches.CertsVolume)
	if asksMount {
		sign("annotation %s names %s", policy.IstioUserVolumeMount, patches.CertsVolume)
	}
	h.isForIstio = proxy == nil
	volume := FindVolume(pod, patches.CertsVolume)
	if volume != nil && volume.EmptyDir == nil {
		h.isForIstio = false
		sign("volume %s is no emptyDir", patches.CertsVolume)
	}
	dir := FindEnv(c, SecretDirEnv)
	if dir != nil {
		sign("container %s sets %s=%q", c.Name, SecretDirEnv, dir.Value)
	}
	asksIstio := false
	for _, v := range []struct{ kind, value string }{
		{"label", pod.Labels[policy.IstioInjectKey]}, {"annotation", pod.Annotations[policy.IstioInjectKey]},
	} {
		if IsTrue(v.value) {
			asksIstio = true
			sign("%s %s is %q", v.kind, policy.IstioInjectKey, v.value)
		}
	}
	if len(h.signs) == 0 {
		return h
	}

	need(dir != nil, fmt.Sprintf("%s in container %s", SecretDirEnv, c.Name))
	need(FindMount(c, patches.CertsVolume) != nil, fmt.Sprintf("a mount of volume %s in container %s", patches.CertsVolume, c.Name))
	if proxy != nil {
		need(FindEnv(proxy, "OUTPUT_CERTS") != nil, "OUTPUT_CERTS in container "+proxy.Name)
		return h
	}
	need(asksOutput, "proxyMetadata.OUTPUT_CERTS in annotation "+policy.IstioProxyConfigKey)
	need(asksMount, "annotation "+policy.IstioUserVolumeMount)
	if volume == nil && !strings.Contains(pod.Annotations[policy.IstioUserVolumeKey], patches.CertsVolume) {
		need(false, "volume "+patches.CertsVolume)
	}
	for _, key := range []string{policy.IstioInboundPortsKey, policy.IstioOutboundRangesKey} {
		_, ok := pod.Annotations[key]
		need(ok, fmt.Sprintf("annotation %s: \"\"", key))
	}
	need(asksIstio || isCalled(pod, ns), fmt.Sprintf("label %s: \"true\"", policy.IstioInjectKey))
	return h
}

// integrated says what becomes of a pod that brings an integration of its own;
// nil means that it has none, or one that mode istio completes.
func (s *subject) integrated() *Result {
	found := handwork(s.Pod, s.Namespace, s.edge)
	if len(found.signs) == 0 {
		return nil
	}
	if s.options.Mode == policy.Istio && s.ranFirst() {
		return nil
	}
	if s.options.Mode == policy.Istio && found.isForIstio {
		if len(found.missing) > 0 {
			return nil
		}
		s.warn(string(policy.IntegratedByHand), "left as it is, for it is prepared for Istio's injector by hand and lacks nothing; isthmus adopt turns it into a plain manifest")
		return &Result{Reason: policy.IntegratedByHand, Message: "the pod is prepared for Istio's injector by hand"}
	}
	r := s.byHand(found)
	return &r
}

// ranFirst reports whether Istio's injector, whose configuration sorts before
// ours, has put its sidecar into the pod already. Whether that serves is for
// checkInjector to say.
func (s *subject) ranFirst() bool {
	if s.Pod.Annotations[policy.IstioStatusKey] == "" {
		return false
	}
	injector, err := s.engine.injector(s.options.Revision)
	return err == nil && injector.RunsFirst
}

// byHand leaves a pod that is integrated by hand as it is.
func (s *subject) byHand(h handiwork) Result {
	found := strings.Join(h.signs, "; ")
	if s.asked == policy.ByPod {
		return denied(policy.Conflict, fmt.Sprintf("%s is \"true\" with %s %s, but the pod is integrated with Istio by hand: %s; remove one of the two (isthmus adopt rewrites the manifest)",
			policy.InjectKey, policy.ModeKey, s.options.Mode, found))
	}
	s.warn(string(policy.IntegratedByHand), "left as it is, for it is integrated with Istio by hand: %s; isthmus adopt turns it into a plain manifest", found)
	if len(h.missing) > 0 {
		s.warn("integration-incomplete", "the integration by hand lacks %s", strings.Join(h.missing, ", "))
	}
	return Result{Reason: policy.IntegratedByHand, Message: "the pod is integrated with Istio by hand: " + found}
}

// isCalled reports whether Istio's injector takes a pod that does not ask for it:
// its namespace or a revision does, and the pod does not refuse.
func isCalled(pod *corev1.Pod, ns policy.Namespace) bool {
	for _, m := range []map[string]string{pod.Labels, pod.Annotations} {
		if v, ok := m[policy.IstioInjectKey]; ok && !IsTrue(v) {
			return false
		}
	}
	revision, never := policy.InjectorRevision(pod.Labels, ns)
	return never == "" && (revision != "" || ns.Labels[policy.IstioInjectionLabel] != "")
}

// FindSidecar finds a container that runs Istio's sidecar: by its name, which
// ztunnel's container has too, or by Istio's image where it writes certificates.
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

// WritesCertificates reports whether a container runs Istio's agent for certificates,
// whatever its name. Istio's injector gives its init container, which runs the
// same image for iptables, the sidecar's environment too.
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

func FindEnv(c *corev1.Container, name string) *corev1.EnvVar {
	for i := range c.Env {
		if c.Env[i].Name == name {
			return &c.Env[i]
		}
	}
	return nil
}

func FindMount(c *corev1.Container, volume string) *corev1.VolumeMount {
	for i := range c.VolumeMounts {
		if c.VolumeMounts[i].Name == volume {
			return &c.VolumeMounts[i]
		}
	}
	return nil
}

func FindVolume(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}
