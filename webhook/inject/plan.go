package inject

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// plan is what will be added.
type plan struct {
	params patches.Params
	// mounted: the edge mounts the certificates already, or needs no mount.
	mounted     bool
	env         []corev1.EnvVar
	labels      []pair
	annotations []pair
	// replaced are annotations whose value changes, with the value that was, and
	// replacedLabels labels.
	replaced, replacedLabels []replacement

	pullSecrets []string
}

type pair struct{ key, value string }

type replacement struct{ key, was, value string }

// plan checks for collisions with what the user has; message says the first,
// and reason of which kind it is.
func (s *subject) plan() (p plan, reason policy.Reason, message string) {
	switch s.options.Mode {
	case policy.Secret:
		p, message = s.planSecret()
		return p, policy.Conflict, message
	case policy.Ambient:
		p, message = s.planAmbient()
		return p, policy.Conflict, message
	case policy.Istio:
		return s.planIstio()
	}
	certDir, own, mounted, message := s.certDir()
	if message != "" {
		return p, policy.Conflict, message
	}
	p.mounted = mounted
	if p.params, message = s.params(certDir, own); message != "" {
		return p, policy.InvalidOverride, message
	}
	for _, check := range []func(*plan) string{s.checkNames, s.checkRestarts, s.checkPort, s.checkHostNetwork, s.planMetadata} {
		if message := check(&p); message != "" {
			return p, policy.Conflict, message
		}
	}
	s.planEnv(&p)
	s.planPullSecrets(&p)
	return p, "", ""
}

// params are what the sidecar's rendering depends on; message says what the mesh
// does not have or grant.
func (s *subject) params(certDir string, own bool) (patches.Params, string) {
	o := s.options
	mesh, err := s.engine.mesh(o.Revision)
	if err != nil {
		return patches.Params{}, err.Error()
	}
	if message := tooLong(o.CertTTL, time.Duration(mesh.MaxCertTTL)); message != "" {
		return patches.Params{}, message
	}
	_, openShift := s.Namespace.Annotations[policy.OpenShiftUIDRangeKey]
	var publisher, secret string
	if o.Publish {
		publisher, secret = s.engine.settings.PublisherImage, o.SecretName
		if publisher == "" {
			return patches.Params{}, policy.PublishKey + ` is "true", but the settings name no publisherImage; set it there, or set ` + policy.PublishKey + `: "false"`
		}
	}
	return patches.Params{
		PublisherImage: publisher,
		SecretName:     secret,
		Mesh:           mesh,
		CertDir:        certDir,
		CertTTL:        o.CertTTL,
		Envoy:          o.Envoy,
		OwnCertsVolume: own,
		HostNetwork:    s.Pod.Spec.HostNetwork,
		Guaranteed:     isGuaranteed(s.Pod),
		NoUID:          openShift,
		Overrides: patches.Overrides{
			Image: o.Proxy.Image, CPU: o.Proxy.CPU, Memory: o.Proxy.Memory,
			CPULimit: o.Proxy.CPULimit, MemoryLimit: o.Proxy.MemoryLimit,
			LogLevel: o.Proxy.LogLevel, AgentLogLevel: o.Proxy.AgentLogLevel, StatusPort: o.Proxy.StatusPort,
		},
	}, ""
}

// tooLong says that the CA grants less than is asked for; a limit of zero is not
// known.
func tooLong(ttl, limit time.Duration) string {
	if limit <= 0 || ttl <= limit {
		return ""
	}
	return fmt.Sprintf("%s %s is above the %s that the CA grants (MAX_WORKLOAD_CERT_TTL of istiod); it would refuse every request", policy.CertTTLKey, ttl, limit)
}

// certDir settles where the certificates go. A lone emptyDir istio-certs of the
// user's is reused, and where the edge mounts it is the directory.
func (s *subject) certDir() (dir string, own, mounted bool, message string) {
	edge := &s.Pod.Spec.Containers[s.edge]
	dir = s.options.CertDir
	volume := FindVolume(s.Pod, patches.CertsVolume)
	if volume != nil {
		own = true
		if volume.EmptyDir.Medium != corev1.StorageMediumMemory {
			s.warn("certs-on-disk", "volume %s of the pod is an emptyDir on disk, so keys reach the node's disk; set medium: Memory, or leave the volume out", patches.CertsVolume)
		}
	}
	if m := FindMount(edge, patches.CertsVolume); m != nil {
		theirs, wrong := policy.CertDir(m.MountPath)
		switch {
		case wrong != "":
			return "", false, false, fmt.Sprintf("container %s mounts volume %s at %s: %s", edge.Name, m.Name, m.MountPath, wrong)
		case m.SubPath != "" || m.SubPathExpr != "":
			return "", false, false, fmt.Sprintf("container %s mounts volume %s with a subPath, which would hide rotations; mount the whole volume", edge.Name, m.Name)
		case s.options.CertDirSet && theirs != dir:
			return "", false, false, fmt.Sprintf("%s is %q but container %s mounts volume %s at %q; make them agree", policy.CertDirKey, dir, edge.Name, m.Name, m.MountPath)
		}
		return theirs, own, true, ""
	}
	for _, m := range edge.VolumeMounts {
		theirs := path.Clean(m.MountPath)
		switch {
		case theirs == dir || strings.HasPrefix(theirs, dir+"/"):
			return "", false, false, fmt.Sprintf("container %s mounts volume %s at %s, where the certificates (%s) would go; choose another directory with %s",
				edge.Name, m.Name, m.MountPath, dir, policy.CertDirKey)
		case strings.HasPrefix(dir, strings.TrimSuffix(theirs, "/")+"/") && s.isReadOnly(m):
			return "", false, false, fmt.Sprintf("container %s mounts volume %s read-only at %s, so nothing can be mounted at %s inside it; choose another directory with %s",
				edge.Name, m.Name, m.MountPath, dir, policy.CertDirKey)
		}
	}
	return dir, own, false, ""
}

// isReadOnly: a runtime cannot make a mount point inside such a volume.
func (s *subject) isReadOnly(m corev1.VolumeMount) bool {
	v := FindVolume(s.Pod, m.Name)
	return m.ReadOnly || v != nil && (v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil)
}

// checkNames: containers and volumes of the same name would be merged or
// refused by the API server.
func (s *subject) checkNames(p *plan) string {
	spec := &s.Pod.Spec
	names := []string{patches.SidecarName, patches.PublisherName}
	switch {
	case p.params.CertsVolume && s.ranFirst():
		names = nil
	case p.params.CertsVolume:
		names = names[:1] // Istio adds it
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

// checkRestarts: the publisher is an ordinary container, so a pod that is to end
// would wait for it for ever.
func (s *subject) checkRestarts(p *plan) string {
	if got := s.Pod.Spec.RestartPolicy; p.params.PublisherImage != "" && (got == corev1.RestartPolicyNever || got == corev1.RestartPolicyOnFailure) {
		return fmt.Sprintf(`%s is "true", but the pod's restartPolicy is %s: it is to end, and the publisher does not; set %s: "false"`, policy.PublishKey, got, policy.PublishKey)
	}
	return ""
}

// checkPort: the agent shares the pod's network with every container.
func (s *subject) checkPort(p *plan) string {
	port := p.params.StatusPort()
	for n, list := range [][]corev1.Container{s.Pod.Spec.Containers, s.Pod.Spec.InitContainers} {
		for i := range list {
			c := &list[i]
			if n == 1 && c.RestartPolicy == nil {
				continue // gone before the agent starts
			}
			if slices.ContainsFunc(c.Ports, func(q corev1.ContainerPort) bool { return q.ContainerPort == port }) {
				return fmt.Sprintf("container %s listens on port %d, which the agent needs; give the agent another one with annotation %s", c.Name, port, policy.IstioStatusPortKey)
			}
		}
	}
	return ""
}

// checkHostNetwork: nothing is captured, so the host's network is fine as long
// as istiod's name resolves.
func (s *subject) checkHostNetwork(*plan) string {
	got := s.Pod.Spec.DNSPolicy
	if !s.Pod.Spec.HostNetwork {
		if got == corev1.DNSDefault || got == corev1.DNSNone {
			s.warn("dns-policy", "dnsPolicy is %q: unless istiod's name resolves there, the edge will wait for its certificate", got)
		}
		return ""
	}
	if got != corev1.DNSClusterFirstWithHostNet {
		return fmt.Sprintf("the pod is on the host's network with dnsPolicy %q, so istiod's name would not resolve; set dnsPolicy: %s", got, corev1.DNSClusterFirstWithHostNet)
	}
	s.warn("host-network", "the pod is on the host's network: the agent takes port %d of the node, so the scheduler keeps two edges apart", s.statusPort())
	return ""
}

func (s *subject) statusPort() int32 {
	if s.options.Proxy.StatusPort != 0 {
		return s.options.Proxy.StatusPort
	}
	return patches.StatusPort
}

// planMetadata keeps other injectors away and marks the pod.
func (s *subject) planMetadata(p *plan) string {
	if message := s.checkMarker(); message != "" {
		return message
	}
	if message := s.planDataplane(p); message != "" {
		return message
	}
	p.mark(s.Pod, s.options.Mode)
	p.label(s.Pod, policy.IstioInjectKey, "false")
	p.label(s.Pod, policy.IstioTLSModeLabel, "disabled")
	p.annotate(s.Pod, policy.IstioInjectKey, "false")
	s.planConsul(p)
	if s.options.Mode != policy.Secret { // no container is added
		p.annotate(s.Pod, policy.DefaultContainerKey, s.Pod.Spec.Containers[s.edge].Name)
	}
	return ""
}

// planDataplane keeps ztunnel away from an edge with a certificate of its own.
func (s *subject) planDataplane(p *plan) string {
	if v, ok := s.Pod.Labels[policy.IstioDataplaneLabel]; ok && v != "none" {
		return contradiction("label", policy.IstioDataplaneLabel, v, s.options.Mode)
	}
	if s.Namespace.Labels[policy.IstioDataplaneLabel] == "ambient" {
		p.label(s.Pod, policy.IstioDataplaneLabel, "none")
	}
	return ""
}

// checkMarker finds labels that would contradict ours.
func (s *subject) checkMarker() string {
	if v, ok := s.Pod.Labels[policy.InjectedLabel]; ok {
		return fmt.Sprintf("label %s (%q) is written by Isthmus; remove it", policy.InjectedLabel, v)
	}
	if v, ok := s.Pod.Labels[policy.IstioTLSModeLabel]; ok && v != "disabled" && !s.isIstios(v) {
		return fmt.Sprintf("label %s is %q, which makes peers send mTLS to ports where mode %s terminates none; remove it", policy.IstioTLSModeLabel, v, s.options.Mode)
	}
	return ""
}

// isIstios: Istio's injector wrote this value of the label, its own default, where
// it ran before us; mode istio takes it back.
func (s *subject) isIstios(tlsMode string) bool {
	return s.options.Mode == policy.Istio && tlsMode == "istio" && s.ranFirst()
}

// planConsul keeps Consul's injector away, unless the user wants it.
func (s *subject) planConsul(p *plan) {
	p.annotate(s.Pod, policy.ConsulInjectKey, "false")
	if v := s.Pod.Annotations[policy.ConsulInjectKey]; IsTrue(v) {
		s.warn("two-meshes", "annotation %s is %q: Consul adds a proxy of its own to this pod", policy.ConsulInjectKey, v)
	}
}

// mark adds the label that the controller looks for.
func (p *plan) mark(pod *corev1.Pod, mode policy.Mode) {
	p.label(pod, policy.InjectedLabel, string(mode))
}

// label adds a label that the pod does not have.
func (p *plan) label(pod *corev1.Pod, key, value string) {
	if _, ok := pod.Labels[key]; !ok {
		p.labels = append(p.labels, pair{key, value})
	}
}

// relabel gives a label a value whatever it had.
func (p *plan) relabel(pod *corev1.Pod, key, value string) {
	if was, ok := pod.Labels[key]; ok && was != value {
		p.replacedLabels = append(p.replacedLabels, replacement{key, was, value})
		return
	}
	p.label(pod, key, value)
}

// annotate adds an annotation that the pod does not have.
func (p *plan) annotate(pod *corev1.Pod, key, value string) {
	if _, ok := pod.Annotations[key]; !ok {
		p.annotations = append(p.annotations, pair{key, value})
	}
}

// overwrite gives an annotation a value whatever it had.
func (p *plan) overwrite(pod *corev1.Pod, key, value string) {
	switch was, ok := pod.Annotations[key]; {
	case !ok:
		p.annotations = append(p.annotations, pair{key, value})
	case was != value:
		p.replaced = append(p.replaced, replacement{key, was, value})
	}
}

// planEnv gives the edge what its profile says, where the user did not.
func (s *subject) planEnv(p *plan) {
	edge := &s.Pod.Spec.Containers[s.edge]
	files := s.readsFiles()
	for _, e := range s.profile.Env {
		if e.When == patches.WhenFiles && !files || e.When == patches.WhenEnvoy && !s.options.Envoy {
			continue
		}
		if FindEnv(edge, e.Name) != nil {
			continue
		}
		p.env = append(p.env, corev1.EnvVar{Name: e.Name, Value: strings.ReplaceAll(e.Value, "${certDir}", p.params.CertDir)})
		if !e.Reads(edge.Image) {
			s.warn("edge-too-old", "%s reads %s from version %s on; this image (%s) does not, so configure the certificates in %s by hand, or upgrade", s.profile.Name, e.Name, e.Since, edge.Image, p.params.CertDir)
		}
	}
	if files && !s.profile.Files.Reloads(edge.Image) {
		text := "%s in this version (%s) notices a rotated file only when something else makes it reconfigure"
		if s.options.Mode != policy.Secret {
			text += "; annotation " + policy.DeliveryKey + ": secret avoids that"
		}
		s.warn("files-not-reloaded", text, s.profile.Name, edge.Image)
	}
}

// planPullSecrets appends the operator's. In a file it must not: the API server
// gives a pod its service account's secrets only when it has none of its own.
func (s *subject) planPullSecrets(p *plan) {
	for _, name := range s.engine.settings.ImagePullSecrets {
		if slices.ContainsFunc(s.Pod.Spec.ImagePullSecrets, func(r corev1.LocalObjectReference) bool { return r.Name == name }) {
			continue
		}
		if s.Template && len(s.Pod.Spec.ImagePullSecrets) == 0 {
			s.warn("pull-secrets-left-out", "imagePullSecrets %s are not added to a template that has none, for they would replace those of its service account; add them to the service account",
				strings.Join(s.engine.settings.ImagePullSecrets, ", "))
			return
		}
		p.pullSecrets = append(p.pullSecrets, name)
	}
}

// isGuaranteed says whether the pod is in the Guaranteed class without us.
func isGuaranteed(pod *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == patches.SidecarName || list[i].Name == patches.PublisherName {
				continue
			}
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				limit, ok := list[i].Resources.Limits[name]
				if !ok {
					return false
				}
				if request, ok := list[i].Resources.Requests[name]; ok && request.Cmp(limit) != 0 {
					return false
				}
			}
		}
	}
	return true
}
