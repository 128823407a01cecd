package adopt

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// adoptMounts checks the mounts of the manual sidecar, and drops the volumes that only the
// sidecar uses.
func (a *adopter) adoptMounts(at string) {
	if len(a.sidecar.VolumeDevices) > 0 {
		return // checkOtherFields reports them
	}
	edge, edgeAt := a.edgeContainer()
	for i, m := range a.sidecar.VolumeMounts {
		if m.Name == a.volume || slices.Contains(a.dropVolumes, m.Name) || m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" {
			continue
		}
		field := fmt.Sprintf("%s.volumeMounts[%d]", at, i)
		if !policy.IsAgentMount(m.MountPath) {
			a.addError(field, "volume %s at %s is not needed by the agent, and Isthmus' sidecar does not have it; remove the mount if it is not needed, otherwise leave the pod as it is", m.Name, m.MountPath)
			continue
		}
		v := inject.FindVolume(a.pod, m.Name)
		if v == nil {
			continue // the API server refuses such a pod
		}
		if v.EmptyDir == nil && v.ConfigMap == nil && v.Projected == nil && v.DownwardAPI == nil {
			a.addError("spec.volumes["+m.Name+"]", "the agent reads %s from %s, but Isthmus mounts the one of the mesh; use the volume of Istio's own templates, or leave the pod as it is", m.MountPath, volumeKind(v))
			continue
		}
		users := a.otherUsers(m.Name)
		if inject.FindMount(edge, m.Name) != nil {
			users = append(users, edgeAt+" ("+edge.Name+")")
		}
		if len(users) > 0 {
			a.addError(field, "volume %s is also mounted in %s, and Isthmus would add one of that name; mount another volume there", m.Name, joinAnd(users))
			continue
		}
		a.dropVolumes = append(a.dropVolumes, m.Name)
	}
}

// volumeKind describes the kind of a volume, such as "a volume of kind secret".
func volumeKind(v *corev1.Volume) string {
	var fields map[string]any
	if err := json.Unmarshal(encode(v), &fields); err != nil {
		panic(err) // encode has just produced it
	}
	delete(fields, "name")
	kinds := slices.Sorted(maps.Keys(fields))
	if len(kinds) == 0 {
		return "an emptyDir"
	}
	return "a volume of kind " + strings.Join(kinds, ", ")
}
