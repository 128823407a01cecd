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

// recognise tells the styles apart; false means that there is nothing to adopt,
// or nothing that may be touched.
func (a *adopter) recognise() bool {
	annotations, labels := a.pod.Annotations, a.pod.Labels
	if _, ok := annotations[policy.StatusKey]; ok {
		a.fail("metadata.annotations["+policy.StatusKey+"]", "Isthmus has injected this pod already; take that back first, with isthmus uninject")
		return false
	}
	edge, at := a.edgeContainer()
	dir := inject.FindEnv(edge, inject.SecretDirEnv)
	asks := inject.IsTrue(labels[policy.IstioInjectKey]) || inject.IsTrue(annotations[policy.IstioInjectKey])
	files := strings.Contains(annotations[policy.IstioProxyConfigKey], "OUTPUT_CERTS") ||
		strings.Contains(annotations[policy.IstioUserVolumeMount], patches.CertsVolume)
	volume := inject.FindVolume(a.pod, patches.CertsVolume)
	switch {
	case annotations[policy.IstioStatusKey] != "":
		a.fail("metadata.annotations["+policy.IstioStatusKey+"]", "Istio's injector, or istioctl kube-inject, has already been here; adopt the manifest that it was given")
		return false
	case a.proxy != nil && (asks || a.proxy.Image == "auto"):
		a.style, a.byIstio = "container "+a.proxy.Name+" for Istio's injector to complete", true
	case a.proxy != nil:
		a.style = "container " + a.proxy.Name + " written by hand"
	case files:
		a.style, a.byIstio = "annotations for Istio's injector", true
	case dir != nil && asks:
		a.style, a.byIstio = "half of the annotations for Istio's injector", true
	case dir != nil:
		a.style = inject.SecretDirEnv + " alone"
		if m := coveringMount(edge.VolumeMounts, dir.Value); m == nil || m.Name != patches.CertsVolume {
			a.fail(at+".env["+inject.SecretDirEnv+"]", "nothing in the pod shows who writes certificates into %q; if Isthmus is to, remove the variable and what is mounted there, and set %s: \"true\"", dir.Value, policy.InjectKey)
			return false
		}
		a.warn("nothing in the pod writes certificates into %s; the agent that Isthmus adds will", dir.Value)
	case asks && a.options.Mode == policy.Istio:
		return false // asked for by the mode as well
	case asks:
		a.fail("metadata["+policy.IstioInjectKey+"]", "the pod asks Istio for a sidecar and for no certificate files, so its traffic goes through that; Isthmus gives an edge certificates and captures nothing. Remove the key and set %s: \"true\", with a TLSContext for the Mappings", policy.InjectKey)
		return false
	case volume != nil && volume.EmptyDir == nil:
		a.style = "volume " + patches.CertsVolume
	default:
		return false
	}
	if v, ok := labels[policy.IstioInjectKey]; a.byIstio && ok && !inject.IsTrue(v) {
		a.fail("metadata.labels["+policy.IstioInjectKey+"]", "it is %q, so Istio's injector never sees the pod and its annotations do nothing; remove the label, or the annotations", v)
	}
	return true
}

// coveringMount is the mount in which a path lies, the longest of them.
func coveringMount(mounts []corev1.VolumeMount, dir string) *corev1.VolumeMount {
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

// findDirectory settles which volume holds the certificates and where the edge
// has them: that is what its configuration may name.
func (a *adopter) findDirectory() {
	output, mounts := outputCerts(a.pod, a.proxy)
	edge, at := a.edgeContainer()
	dir := inject.FindEnv(edge, inject.SecretDirEnv)
	if dir != nil && dir.ValueFrom != nil {
		a.fail(at+".env["+inject.SecretDirEnv+"]", "its value comes from elsewhere (valueFrom), so the certificates' directory is not known; write it out")
		return
	}
	a.volume = patches.CertsVolume
	within := ""
	if output != "" {
		a.dir = path.Clean(output)
		if m := coveringMount(mounts, output); m != nil {
			a.volume = m.Name
			within = strings.TrimPrefix(a.dir, path.Clean(m.MountPath))
		}
	} else if dir != nil {
		a.dir = path.Clean(dir.Value)
	}
	edges := mountsOf(edge, a.volume)
	if len(edges) == 1 {
		m := edge.VolumeMounts[edges[0]]
		if m.SubPath != "" || m.SubPathExpr != "" {
			a.fail(at+".volumeMounts["+m.Name+"].subPath", "the edge mounts a part of the volume, and Isthmus mounts the whole; remove subPath")
			return
		}
		if output != "" || dir == nil {
			a.dir = path.Clean(m.MountPath + within)
		}
	}
	if len(edges) > 1 {
		a.fail(at+".volumeMounts["+a.volume+"]", "the edge mounts it %d times, and Isthmus once; remove all but one", len(edges))
		return
	}
	if a.dir == "" {
		return
	}
	if dir != nil && path.Clean(dir.Value) != a.dir {
		a.warn("container %s looks for certificates in %q, but they are in %q; once adopted, both are %q", edge.Name, dir.Value, a.dir, a.dir)
	}
	if _, wrong := policy.CertDir(a.dir); wrong != "" {
		a.fail(at+".volumeMounts["+a.volume+"].mountPath", "the certificates are in %q: %s", a.dir, wrong)
	}
}

// mountsOf are the indexes of a container's mounts of a volume.
func mountsOf(c *corev1.Container, volume string) []int {
	var found []int
	for i := range c.VolumeMounts {
		if c.VolumeMounts[i].Name == volume {
			found = append(found, i)
		}
	}
	return found
}

// outputCerts says where the sidecar is to write certificates, and what is
// mounted in it.
func outputCerts(pod *corev1.Pod, proxy *corev1.Container) (dir string, mounts []corev1.VolumeMount) {
	if proxy != nil {
		mounts = append(mounts, proxy.VolumeMounts...)
		if v := inject.FindEnv(proxy, "OUTPUT_CERTS"); v != nil {
			dir = v.Value
		} else if v := inject.FindEnv(proxy, "PROXY_CONFIG"); v != nil {
			dir = outputOf(v.Value)
		}
	}
	if config := pod.Annotations[policy.IstioProxyConfigKey]; dir == "" && config != "" {
		dir = outputOf(config)
	}
	named, _ := readNamed(pod.Annotations[policy.IstioUserVolumeMount]).(items)
	for name, item := range named {
		m, ok := item.(object)
		if at, isText := m["mountPath"].(string); ok && isText {
			mounts = append(mounts, corev1.VolumeMount{Name: name, MountPath: at})
		}
	}
	slices.SortFunc(mounts, func(a, b corev1.VolumeMount) int { return strings.Compare(a.Name, b.Name) })
	return dir, mounts
}

// outputOf reads OUTPUT_CERTS from a ProxyConfig.
func outputOf(config string) string {
	tree, _ := readConfig(config).(object)
	metadata, _ := tree["proxyMetadata"].(items)
	dir, _ := metadata["OUTPUT_CERTS"].(string)
	return dir
}

// certVolumes names the volumes that hold certificates in a pod integrated by
// hand.
func certVolumes(pod *corev1.Pod) []string {
	dir, mounts := outputCerts(pod, agentOf(pod))
	names := []string{patches.CertsVolume}
	if dir != "" {
		if m := coveringMount(mounts, dir); m != nil && m.Name != patches.CertsVolume {
			names = append(names, m.Name)
		}
	}
	return names
}
