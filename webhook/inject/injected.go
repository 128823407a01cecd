package inject

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// StaleTemplate is the code of the warning about a pod that was injected with another
// template than the current one.
const StaleTemplate = "stale-template"

// decideInjected decides on a pod that has a status annotation. Such a pod is neither
// injected again nor repaired.
func (s *subject) decideInjected(text string) Result {
	st, err := parseStatus(text)
	if err != nil {
		return s.refuseStatus(err.Error())
	}
	if missing := st.findMissing(s.Pod); missing != "" {
		return s.refuseStatus(fmt.Sprintf("annotation %s says that Isthmus added %s, which is missing", policy.StatusKey, missing))
	}
	s.profile = s.engine.profiles.ByName(st.Profile)
	hash := s.currentHash(st)
	if hash != "" && hash != st.Template {
		s.warn(StaleTemplate, "the pod was injected with template %s and the current one is %s; inject it again to update it", policy.Clip(st.Template, maxTemplateName), hash)
	}
	return Result{Reason: policy.AlreadyInjected, Template: hash}
}

// maxTemplateName is how much of the template's hash in a status is repeated.
const maxTemplateName = 64

// refuseStatus refuses an edge whose status annotation is not that of an injection. The
// annotation of a pod that is no edge says nothing to Isthmus.
func (s *subject) refuseStatus(message string) Result {
	if _, reason, _ := s.engine.FindEdge(s.Request); reason == policy.NoProfile && s.optIn == policy.OptedInByNamespace {
		return Result{Reason: policy.NoProfile}
	}
	return s.refuse(policy.Conflict, message+"; remove the annotation to have the pod injected")
}

// currentHash returns the hash of the template that the pod would get today, or "" if
// it cannot be computed.
func (s *subject) currentHash(st *Status) string {
	options, problem := policy.Resolve(s.Pod.Labels, s.Pod.Annotations, s.Namespace, s.engine.settings.Defaults, s.engine.settings.Names())
	if problem != nil || !st.Mode.Known() {
		return ""
	}
	s.options = options
	s.limitToFiles()
	if options.Mode == policy.Sidecar {
		var problem string
		if s.proxy, _, problem = policy.ReadProxy(s.Pod.Annotations); problem != "" {
			return ""
		}
	}
	_, addedVolume := st.Added.Volumes[patches.CertsVolume]
	var params patches.Params
	var message string
	switch options.Mode {
	case policy.Secret:
		params = s.secretParams(st.CertDir)
	case policy.Ambient:
		params = patches.Params{NoSidecar: true}
	case policy.Istio:
		params = s.istioParams(st.CertDir, !addedVolume)
	default:
		params, message = s.sidecarParams(st.CertDir, !addedVolume)
	}
	if message != "" {
		return ""
	}
	r, err := s.engine.render(params)
	if err != nil {
		return ""
	}
	return r.sidecar.Hash
}

// findMissing returns the first thing that the status lists and the pod lacks, or "".
func (st *Status) findMissing(pod *corev1.Pod) string {
	edge := containerIndex(pod.Spec.Containers, st.Container)
	if edge < 0 {
		return "something to container " + st.Container
	}
	for name := range st.Added.InitContainers {
		if containerIndex(pod.Spec.InitContainers, name) < 0 {
			return "init container " + name
		}
	}
	for name := range st.Added.Containers {
		if containerIndex(pod.Spec.Containers, name) < 0 {
			return "container " + name
		}
	}
	for name := range st.Added.Volumes {
		if FindVolume(pod, name) == nil {
			return "volume " + name
		}
	}
	for name := range st.Added.Mounts {
		if FindMount(&pod.Spec.Containers[edge], name) == nil {
			return "a mount of volume " + name
		}
	}
	for name := range st.Added.Env {
		if FindEnv(&pod.Spec.Containers[edge], name) == nil {
			return "environment variable " + name
		}
	}
	// The controller finds its pods by the label.
	if mode, ok := st.Added.Labels[policy.InjectedLabel]; ok && pod.Labels[policy.InjectedLabel] != mode {
		return "label " + policy.InjectedLabel + "=" + mode
	}
	return ""
}
