package adopt

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// recognise determines how the pod is integrated by hand. It returns false if there is
// nothing to adopt, or if the pod must not be changed.
func (a *adopter) recognise() bool {
	annotations, labels := a.pod.Annotations, a.pod.Labels
	if _, ok := annotations[policy.StatusKey]; ok {
		a.addError("metadata.annotations["+policy.StatusKey+"]", "Isthmus has already injected this pod; revert that first with isthmus uninject")
		return false
	}
	edge, at := a.edgeContainer()
	dir := inject.FindEnv(edge, inject.SecretDirEnv)
	asksInjector := inject.IsTrue(labels[policy.IstioInjectKey]) || inject.IsTrue(annotations[policy.IstioInjectKey])
	asksForFiles := strings.Contains(annotations[policy.IstioProxyConfigKey], "OUTPUT_CERTS") ||
		strings.Contains(annotations[policy.IstioUserVolumeMount], patches.CertsVolume)
	volume := inject.FindVolume(a.pod, patches.CertsVolume)
	switch {
	case annotations[policy.IstioStatusKey] != "":
		a.addError("metadata.annotations["+policy.IstioStatusKey+"]", "Istio's injector, or istioctl kube-inject, has already changed this pod; adopt the manifest from before that")
		return false
	case a.sidecar != nil && (asksInjector || a.sidecar.Image == "auto"):
		a.found, a.usesInjector = "container "+a.sidecar.Name+" for Istio's injector to complete", true
	case a.sidecar != nil:
		a.found = "container " + a.sidecar.Name + " written by hand"
	case asksForFiles:
		a.found, a.usesInjector = "annotations for Istio's injector", true
	case dir != nil && asksInjector:
		a.found, a.usesInjector = "half of the annotations for Istio's injector", true
	case dir != nil:
		a.found = inject.SecretDirEnv + " alone"
		if m := enclosingMount(edge.VolumeMounts, dir.Value); m == nil || m.Name != patches.CertsVolume {
			a.addError(at+".env["+inject.SecretDirEnv+"]", "nothing in the pod shows who writes certificates into %q; if Isthmus should, remove the variable and what is mounted there, and set %s: \"true\"", dir.Value, policy.InjectKey)
			return false
		}
		a.warn("nothing in the pod writes certificates into %s; the agent that Isthmus adds will", dir.Value)
	case asksInjector && a.options.Mode == policy.Istio:
		return false // mode istio asks for the sidecar too
	case asksInjector:
		a.addError("metadata["+policy.IstioInjectKey+"]", "the pod asks Istio for a sidecar and for no certificate files, so its traffic goes through that; Isthmus gives an edge certificates and captures nothing. Remove the key and set %s: \"true\", with a TLSContext for the Mappings", policy.InjectKey)
		return false
	case volume != nil && volume.EmptyDir == nil:
		a.found = "volume " + patches.CertsVolume
	default:
		return false
	}
	if v, ok := labels[policy.IstioInjectKey]; a.usesInjector && ok && !inject.IsTrue(v) {
		a.addError("metadata.labels["+policy.IstioInjectKey+"]", "it is %q, so Istio's injector never sees the pod and its annotations do nothing; remove the label, or the annotations", v)
	}
	return true
}

// enclosingMount returns the innermost mount that contains a path, or nil.
func enclosingMount(mounts []corev1.VolumeMount, dir string) *corev1.VolumeMount {
	var found *corev1.VolumeMount
	dir = path.Clean(dir)
	for i := range mounts {
		at := path.Clean(mounts[i].MountPath)
		if (dir == at || strings.HasPrefix(dir, strings.TrimSuffix(at, "/")+"/")) && (found == nil || len(at) > len(path.Clean(found.MountPath))) {
			found = &mounts[i]
		}
	}
	return found
}

// locateCerts determines which volume holds the certificates and where the edge mounts
// them, because the configuration of the edge may name that directory.
func (a *adopter) locateCerts() {
	output, mounts := findOutputDir(a.pod, a.sidecar)
	edge, at := a.edgeContainer()
	dir := inject.FindEnv(edge, inject.SecretDirEnv)
	if dir != nil && dir.ValueFrom != nil {
		a.addError(at+".env["+inject.SecretDirEnv+"]", "its value comes from elsewhere (valueFrom), so the certificates' directory is not known; write it out")
		return
	}
	a.volume = patches.CertsVolume
	subdir := ""
	if output != "" {
		a.dir = path.Clean(output)
		if m := enclosingMount(mounts, output); m != nil {
			a.volume = m.Name
			subdir = strings.TrimPrefix(a.dir, path.Clean(m.MountPath))
		}
	} else if dir != nil {
		a.dir = path.Clean(dir.Value)
	}
	edgeMounts := mountIndexes(edge, a.volume)
	if len(edgeMounts) == 1 {
		m := edge.VolumeMounts[edgeMounts[0]]
		if m.SubPath != "" || m.SubPathExpr != "" {
			a.addError(at+".volumeMounts["+m.Name+"].subPath", "the edge mounts a part of the volume, and Isthmus mounts the whole; remove subPath")
			return
		}
		if output != "" || dir == nil {
			a.dir = path.Clean(m.MountPath + subdir)
		}
	}
	if len(edgeMounts) > 1 {
		a.addError(at+".volumeMounts["+a.volume+"]", "the edge mounts it %d times, and Isthmus once; remove all but one", len(edgeMounts))
		return
	}
	if a.dir == "" {
		return
	}
	if dir != nil && path.Clean(dir.Value) != a.dir {
		a.warn("container %s looks for certificates in %q, but they are in %q; once adopted, both are %q", edge.Name, dir.Value, a.dir, a.dir)
	}
	if _, problem := policy.ParseCertDir(a.dir); problem != "" {
		a.addError(at+".volumeMounts["+a.volume+"].mountPath", "the certificates are in %q: %s", a.dir, problem)
	}
}

// mountIndexes returns the indexes of a container's mounts of a volume.
func mountIndexes(c *corev1.Container, volume string) []int {
	var found []int
	for i := range c.VolumeMounts {
		if c.VolumeMounts[i].Name == volume {
			found = append(found, i)
		}
	}
	return found
}

// findOutputDir returns the directory to which the sidecar writes certificates, or "",
// and the mounts of the sidecar.
func findOutputDir(pod *corev1.Pod, sidecar *corev1.Container) (dir string, mounts []corev1.VolumeMount) {
	if sidecar != nil {
		mounts = append(mounts, sidecar.VolumeMounts...)
		if v := inject.FindEnv(sidecar, "OUTPUT_CERTS"); v != nil {
			dir = v.Value
		} else if v := inject.FindEnv(sidecar, "PROXY_CONFIG"); v != nil {
			dir = outputDirIn(v.Value)
		}
	}
	if config := pod.Annotations[policy.IstioProxyConfigKey]; dir == "" && config != "" {
		dir = outputDirIn(config)
	}
	userMounts, _ := parseNamed(pod.Annotations[policy.IstioUserVolumeMount]).(itemMap)
	for name, item := range userMounts {
		m, ok := item.(fieldMap)
		if dir, isText := m["mountPath"].(string); ok && isText {
			mounts = append(mounts, corev1.VolumeMount{Name: name, MountPath: dir})
		}
	}
	slices.SortFunc(mounts, func(a, b corev1.VolumeMount) int { return strings.Compare(a.Name, b.Name) })
	return dir, mounts
}

// outputDirIn returns OUTPUT_CERTS of a ProxyConfig, or "".
func outputDirIn(config string) string {
	fields, _ := parseProxyConfig(config).(fieldMap)
	metadata, _ := fields["proxyMetadata"].(itemMap)
	dir, _ := metadata["OUTPUT_CERTS"].(string)
	return dir
}

// certVolumes names the volumes that may hold certificates in a pod that is integrated by
// hand.
func certVolumes(pod *corev1.Pod) []string {
	dir, mounts := findOutputDir(pod, findSidecar(pod))
	names := []string{patches.CertsVolume}
	if dir != "" {
		if m := enclosingMount(mounts, dir); m != nil && m.Name != patches.CertsVolume {
			names = append(names, m.Name)
		}
	}
	return names
}
