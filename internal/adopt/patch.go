package adopt

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	operations "gomodules.xyz/jsonpatch/v2"
)

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
