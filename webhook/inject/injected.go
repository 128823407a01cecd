package inject

import (
	"fmt"
	"maps"
	"slices"

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
		if s.proxy, _, problem = policy.ReadProxy(s.Pod.Annotations, options.Mode); problem != "" {
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
	c := &pod.Spec.Containers[edge]
	containerName := func(c *corev1.Container) string { return c.Name }
	for _, missing := range []string{
		firstMissing("init container ", st.Added.InitContainers, pod.Spec.InitContainers, containerName),
		firstMissing("container ", st.Added.Containers, pod.Spec.Containers, containerName),
		firstMissing("volume ", st.Added.Volumes, pod.Spec.Volumes, func(v *corev1.Volume) string { return v.Name }),
		firstMissing("a mount of volume ", st.Added.Mounts, c.VolumeMounts, func(m *corev1.VolumeMount) string { return m.Name }),
		firstMissing("environment variable ", st.Added.Env, c.Env, func(e *corev1.EnvVar) string { return e.Name }),
	} {
		if missing != "" {
			return missing
		}
	}
	// The controller finds its pods by the label.
	if mode, ok := st.Added.Labels[policy.InjectedLabel]; ok && pod.Labels[policy.InjectedLabel] != mode {
		return "label " + policy.InjectedLabel + "=" + mode
	}
	return ""
}

// firstMissing returns the first name, in alphabetical order, that was added and is not in
// the pod's list, or "". It takes time for both lists together, not for their product: a
// pod's author writes them.
func firstMissing[Value, Item any](kind string, added map[string]Value, list []Item, name func(*Item) string) string {
	if len(added) == 0 {
		return ""
	}
	names := make(map[string]bool, len(list))
	for i := range list {
		names[name(&list[i])] = true
	}
	for _, wanted := range slices.Sorted(maps.Keys(added)) {
		if !names[wanted] {
			return kind + wanted
		}
	}
	return ""
}
