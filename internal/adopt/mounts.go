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

// takeMounts looks at what is mounted in the sidecar, and lets volumes go that
// nobody else uses.
func (a *adopter) takeMounts(at string) {
	if len(a.proxy.VolumeDevices) > 0 {
		return // checkRest refuses them
	}
	edge, edgeAt := a.edgeContainer()
	for i, m := range a.proxy.VolumeMounts {
		if m.Name == a.volume || slices.Contains(a.dropVolumes, m.Name) || m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" {
			continue
		}
		field := fmt.Sprintf("%s.volumeMounts[%d]", at, i)
		if !policy.IsAgentMount(m.MountPath) {
			a.fail(field, "volume %s at %s is none that the agent needs, and Isthmus' sidecar does not have it; remove the mount if nobody needs it, else leave the pod as it is", m.Name, m.MountPath)
			continue
		}
		v := inject.FindVolume(a.pod, m.Name)
		if v == nil {
			continue // the API server would refuse the pod
		}
		if v.EmptyDir == nil && v.ConfigMap == nil && v.Projected == nil && v.DownwardAPI == nil {
			a.fail("spec.volumes["+m.Name+"]", "the agent takes %s from %s, and Isthmus gives it what the mesh has; make it what Istio's own templates have, or leave the pod as it is", m.MountPath, volumeKind(v))
			continue
		}
		users := a.others(m.Name)
		if inject.FindMount(edge, m.Name) != nil {
			users = append(users, edgeAt+" ("+edge.Name+")")
		}
		if len(users) > 0 {
			a.fail(field, "volume %s is also mounted in %s, and Isthmus would add one of that name; give theirs a volume of its own", m.Name, several(users))
			continue
		}
		a.dropVolumes = append(a.dropVolumes, m.Name)
	}
}

// volumeKind is what a volume is: secret, hostPath.
func volumeKind(v *corev1.Volume) string {
	var fields map[string]any
	if err := json.Unmarshal(encode(v), &fields); err != nil {
		panic(err) // encode has just made it
	}
	delete(fields, "name")
	kinds := slices.Sorted(maps.Keys(fields))
	if len(kinds) == 0 {
		return "an emptyDir"
	}
	return "a volume of kind " + strings.Join(kinds, ", ")
}
