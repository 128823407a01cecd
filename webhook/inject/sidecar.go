package inject

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// planSidecar plans mode sidecar: Isthmus adds Istio's agent beside the edge.
func (s *subject) planSidecar() (p plan, reason policy.Reason, message string) {
	location, message := s.locateCerts()
	if message != "" {
		return p, policy.Conflict, message
	}
	p.mounted = location.mounted
	if p.params, message = s.sidecarParams(location.dir, location.ownVolume); message != "" {
		return p, policy.InvalidOverride, message
	}
	for _, check := range []func(*plan) string{s.checkNames, s.checkRestartPolicy, s.checkPorts, s.checkHostNetwork, s.planMetadata} {
		if message := check(&p); message != "" {
			return p, policy.Conflict, message
		}
	}
	s.warnCoveredResources(p.params.PodResources)
	s.planEnv(&p)
	s.planPullSecrets(&p)
	return p, "", ""
}

// warnCoveredResources warns of Istio's annotations about resources that the pod itself
// requests or limits.
func (s *subject) warnCoveredResources(pod patches.PodResources) {
	for _, a := range []struct {
		key     string
		covered bool
	}{
		{policy.IstioProxyCPUKey, pod.CPU}, {policy.IstioProxyCPULimitKey, pod.CPU},
		{policy.IstioProxyMemoryKey, pod.Memory}, {policy.IstioProxyMemLimitKey, pod.Memory},
	} {
		if v, ok := s.Pod.Annotations[a.key]; ok && a.covered {
			s.warn("no-effect", "annotation %s: %q has no effect because spec.resources of the pod covers its containers; remove the annotation", a.key, v)
		}
	}
}

// sidecarParams returns the parameters of mode sidecar. The message says what the mesh
// lacks or does not grant.
func (s *subject) sidecarParams(certDir string, ownVolume bool) (patches.Params, string) {
	o := s.options
	mesh, err := s.engine.mesh(o.Revision)
	if err != nil {
		return patches.Params{}, err.Error()
	}
	if message := ttlProblem(o.CertTTL, time.Duration(mesh.MaxCertTTL)); message != "" {
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
		OwnCertsVolume: ownVolume,
		HostNetwork:    s.Pod.Spec.HostNetwork,
		Guaranteed:     isGuaranteed(s.Pod),
		PodResources:   patches.PodResourcesOf(s.Pod),
		OpenShift:      openShift,
		Overrides: patches.Overrides{
			Image: s.proxy.Image, CPU: s.proxy.CPU, Memory: s.proxy.Memory,
			CPULimit: s.proxy.CPULimit, MemoryLimit: s.proxy.MemoryLimit,
			LogLevel: s.proxy.LogLevel, AgentLogLevel: s.proxy.AgentLogLevel, StatusPort: s.proxy.StatusPort,
		},
	}, ""
}

// ttlProblem says that the CA does not grant the lifetime, or returns "". A limit of
// zero is unknown.
func ttlProblem(ttl, limit time.Duration) string {
	if limit <= 0 || ttl <= limit {
		return ""
	}
	return fmt.Sprintf("%s %s is above the %s that the CA grants (MAX_WORKLOAD_CERT_TTL of istiod); istiod would refuse every request", policy.CertTTLKey, ttl, limit)
}

// isGuaranteed reports whether the pod is in the Guaranteed class without the containers
// that Isthmus adds. In a pod with resources of its own the containers do not matter.
func isGuaranteed(pod *corev1.Pod) bool {
	if pod.Spec.Resources != nil {
		return false
	}
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
