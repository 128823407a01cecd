package inject

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// certLocation is where the edge finds its certificates.
type certLocation struct {
	dir string
	// ownVolume is true if the pod itself has the volume istio-certs.
	ownVolume bool
	// mounted is true if the edge itself mounts that volume.
	mounted bool
}

// locateCerts determines where the certificates go. If the pod has an emptyDir
// istio-certs, that volume is used, and the directory at which the edge mounts it is the
// certificate directory. The message describes a conflict. Of mode istio it says nothing
// about other mounts of the edge: see mergeIstioAnnotations.
func (s *subject) locateCerts() (location certLocation, message string) {
	edge := &s.Pod.Spec.Containers[s.edge]
	dir := s.options.CertDir
	volume := FindVolume(s.Pod, patches.CertsVolume)
	if volume != nil && volume.EmptyDir == nil {
		return location, fmt.Sprintf("volume %s of the pod is no emptyDir, so nothing can write certificates there; rename it, or make it an emptyDir with medium: Memory", patches.CertsVolume)
	}
	if volume != nil && volume.EmptyDir.Medium != corev1.StorageMediumMemory {
		s.warn("certs-on-disk", "volume %s of the pod is an emptyDir on disk, so keys reach the node's disk; set medium: Memory, or leave the volume out", patches.CertsVolume)
	}
	if m := FindMount(edge, patches.CertsVolume); m != nil {
		mountDir, problem := policy.ParseCertDir(m.MountPath)
		switch {
		case problem != "":
			return location, fmt.Sprintf("container %s mounts volume %s at %s: %s", edge.Name, m.Name, m.MountPath, problem)
		case m.SubPath != "" || m.SubPathExpr != "":
			return location, fmt.Sprintf("container %s mounts volume %s with a subPath, which would hide rotations; mount the whole volume", edge.Name, m.Name)
		case s.options.CertDirSet && mountDir != dir:
			return location, fmt.Sprintf("%s is %q but container %s mounts volume %s at %q; make them agree", policy.CertDirKey, dir, edge.Name, m.Name, m.MountPath)
		}
		return certLocation{dir: mountDir, ownVolume: volume != nil, mounted: true}, ""
	}
	// In mode istio the user's OUTPUT_CERTS may choose another directory.
	if s.options.Mode != policy.Istio {
		message = s.mountInTheWay(dir, policy.CertDirKey)
	}
	return certLocation{dir: dir, ownVolume: volume != nil}, message
}

// mountInTheWay says which mount of the edge leaves no room for one at dir, or returns
// "". setting is what chooses dir.
func (s *subject) mountInTheWay(dir, setting string) string {
	edge := &s.Pod.Spec.Containers[s.edge]
	readOnly := readOnlyVolumes(s.Pod)
	for _, m := range edge.VolumeMounts {
		mountDir := path.Clean(m.MountPath)
		switch {
		case mountDir == dir || strings.HasPrefix(mountDir, dir+"/"):
			return fmt.Sprintf("container %s mounts volume %s at %s, where the certificates (%s) would go; choose another directory with %s",
				edge.Name, m.Name, m.MountPath, dir, setting)
		case strings.HasPrefix(dir, strings.TrimSuffix(mountDir, "/")+"/") && (m.ReadOnly || readOnly[m.Name]):
			return fmt.Sprintf("container %s mounts volume %s read-only at %s, so nothing can be mounted at %s inside it; choose another directory with %s",
				edge.Name, m.Name, m.MountPath, dir, setting)
		}
	}
	return ""
}

// readOnlyVolumes returns the names of the volumes in which a container runtime cannot
// create a mount point.
func readOnlyVolumes(pod *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		names[v.Name] = v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil
	}
	return names
}
