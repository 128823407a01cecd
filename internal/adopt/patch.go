package adopt

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	operations "gomodules.xyz/jsonpatch/v2"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// adoptCertsVolume drops the volume of the certificates. A volume that another container
// uses too stays, and Isthmus uses it.
func (a *adopter) adoptCertsVolume() {
	v := inject.FindVolume(a.pod, a.volume)
	if v == nil {
		return
	}
	if kind := volumeKind(v); v.EmptyDir == nil {
		remedy := "leave the pod as it is, or make it an emptyDir"
		if v.Secret != nil {
			remedy = policy.ModeKey + ": secret has Isthmus keep a Secret and mount it; remove the volume and its mounts, and set that"
		}
		a.addError("spec.volumes["+v.Name+"]", "the certificates come from %s; %s", kind, remedy)
		return
	}
	users := a.otherUsers(a.volume)
	switch {
	case len(users) == 0:
		a.dropVolumes = append(a.dropVolumes, a.volume)
	case a.volume != patches.CertsVolume:
		a.addError("spec.volumes["+a.volume+"]", "it is also mounted in %s, and Isthmus' agent writes into volume %s; rename it to that", joinAnd(users), patches.CertsVolume)
	default:
		a.warn("volume %s stays, for it is also mounted in %s", a.volume, joinAnd(users))
	}
}

// adoptEdge drops variables and mounts of the edge.
func (a *adopter) adoptEdge() {
	edge, at := a.edgeContainer()
	a.dropMounts = mountIndexes(edge, a.volume)
	if inject.FindEnv(edge, inject.SecretDirEnv) != nil {
		a.dropEnv = append(a.dropEnv, inject.SecretDirEnv)
	}
	if id := inject.FindEnv(edge, envoyBaseIDEnv); id != nil && a.dropsBaseID(id.Value) && id.ValueFrom == nil {
		a.dropEnv = append(a.dropEnv, envoyBaseIDEnv)
	}
	for _, name := range a.dropEnv {
		for i := range edge.Env {
			if strings.Contains(edge.Env[i].Value, "$("+name+")") {
				a.addError(at+".env["+edge.Env[i].Name+"]", "it refers to %s, which Isthmus sets behind it, where it is not known yet; write the value out", name)
			}
		}
	}
}

// dropsBaseID reports whether the edge has a base ID because of the sidecar's Envoy. On the
// host's network the ID may distinguish the Envoys of two pods, and a number that the user
// has chosen may have another purpose.
func (a *adopter) dropsBaseID(value string) bool {
	switch {
	case a.pod.Spec.HostNetwork, a.options.Envoy:
		return false
	case a.usesInjector:
		return value == "1" // Isthmus sets the same
	default:
		return a.sidecar != nil
	}
}

// patch builds the patch. It also removes lists and maps that become empty.
func (a *adopter) patch() []operations.Operation {
	p := &patchBuilder{}
	var volumes []int
	for i := range a.pod.Spec.Volumes {
		if slices.Contains(a.dropVolumes, a.pod.Spec.Volumes[i].Name) {
			volumes = append(volumes, i)
		}
	}
	p.removeItems("/spec/volumes", len(a.pod.Spec.Volumes), volumes)
	edge, _ := a.edgeContainer()
	edgePath := "/spec/containers/" + strconv.Itoa(a.edge)
	var env []int
	for i := range edge.Env {
		if slices.Contains(a.dropEnv, edge.Env[i].Name) {
			env = append(env, i)
		}
	}
	p.removeItems(edgePath+"/env", len(edge.Env), env)
	p.removeItems(edgePath+"/volumeMounts", len(edge.VolumeMounts), a.dropMounts)
	if a.sidecar != nil { // last, because the removal may change the edge's index
		list, i := a.containerPosition(a.sidecar)
		length := len(a.pod.Spec.Containers)
		if list == "initContainers" {
			length = len(a.pod.Spec.InitContainers)
		}
		p.removeItems("/spec/"+list, length, []int{i})
	}
	p.changeMap("/metadata/labels", a.pod.Labels, a.dropLabels, nil)
	changes := maps.Clone(a.newAnnotations)
	maps.Copy(changes, a.editedAnnotations)
	p.changeMap("/metadata/annotations", a.pod.Annotations, a.dropAnnotations, changes)
	return p.ops
}

// patchBuilder collects operations.
type patchBuilder struct{ ops []operations.Operation }

func (p *patchBuilder) add(op, path string, value any) {
	p.ops = append(p.ops, operations.NewOperation(op, path, value))
}

// removeItems removes items of a list, from its end to its beginning.
func (p *patchBuilder) removeItems(path string, length int, indexes []int) {
	if len(indexes) > 0 && len(indexes) == length {
		p.add("remove", path, nil)
		return
	}
	for _, i := range slices.Backward(indexes) {
		p.add("remove", path+"/"+strconv.Itoa(i), nil)
	}
}

// changeMap removes keys of a map, and sets others.
func (p *patchBuilder) changeMap(path string, current map[string]string, remove []string, set map[string]string) {
	if current == nil {
		if len(set) > 0 {
			p.add("add", path, set)
		}
		return
	}
	if len(remove) > 0 && len(remove) == len(current) && len(set) == 0 {
		p.add("remove", path, nil)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		switch now, ok := current[key]; {
		case !ok:
			p.add("add", path+"/"+escape(key), set[key])
		case now != set[key]:
			p.add("replace", path+"/"+escape(key), set[key])
		}
	}
	for _, key := range slices.Sorted(slices.Values(remove)) {
		p.add("remove", path+"/"+escape(key), nil)
	}
}

// escape turns a key into a segment of a JSON pointer (RFC 6901).
var escape = strings.NewReplacer("~", "~0", "/", "~1").Replace
