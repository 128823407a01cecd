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

// takeVolume lets the certificates' volume go. Where another container uses it
// too it stays: Isthmus makes use of it.
func (a *adopter) takeVolume() {
	v := inject.FindVolume(a.pod, a.volume)
	if v == nil {
		return
	}
	if kind := volumeKind(v); v.EmptyDir == nil {
		out := "leave the pod as it is, or make it an emptyDir"
		if v.Secret != nil {
			out = policy.ModeKey + ": secret has Isthmus keep a Secret and mount it; remove the volume and its mounts, and set that"
		}
		a.fail("spec.volumes["+v.Name+"]", "the certificates come from %s; %s", kind, out)
		return
	}
	users := a.others(a.volume)
	switch {
	case len(users) == 0:
		a.dropVolumes = append(a.dropVolumes, a.volume)
	case a.volume != patches.CertsVolume:
		a.fail("spec.volumes["+a.volume+"]", "it is also mounted in %s, and Isthmus' agent writes into volume %s; rename it to that", several(users), patches.CertsVolume)
	default:
		a.warn("volume %s stays, for it is also mounted in %s", a.volume, several(users))
	}
}

// takeEdge takes variables and mount off the edge.
func (a *adopter) takeEdge() {
	edge, at := a.edgeContainer()
	a.dropMounts = mountsOf(edge, a.volume)
	if inject.FindEnv(edge, inject.SecretDirEnv) != nil {
		a.dropEnv = append(a.dropEnv, inject.SecretDirEnv)
	}
	if id := inject.FindEnv(edge, envoyBaseEnv); id != nil && a.dropsBase(id.Value) && id.ValueFrom == nil {
		a.dropEnv = append(a.dropEnv, envoyBaseEnv)
	}
	for _, name := range a.dropEnv {
		for i := range edge.Env {
			if strings.Contains(edge.Env[i].Value, "$("+name+")") {
				a.fail(at+".env["+edge.Env[i].Name+"]", "it refers to %s, which Isthmus sets behind it, where it is not known yet; write the value out", name)
			}
		}
	}
}

// dropsBase: an ID that was there for the sidecar's Envoy. On the host's network
// it may keep the Envoys of two pods apart, and a number of one's own has a
// reason.
func (a *adopter) dropsBase(value string) bool {
	switch {
	case a.pod.Spec.HostNetwork, a.options.Envoy:
		return false
	case a.byIstio:
		return value == "1" // which Isthmus sets
	default:
		return a.proxy != nil
	}
}

// patch removes what goes and adds what comes. Lists and maps that are left empty
// go too.
func (a *adopter) patch() []operations.Operation {
	p := &patcher{}
	var volumes []int
	for i := range a.pod.Spec.Volumes {
		if slices.Contains(a.dropVolumes, a.pod.Spec.Volumes[i].Name) {
			volumes = append(volumes, i)
		}
	}
	p.items("/spec/volumes", len(a.pod.Spec.Volumes), volumes)
	edge, _ := a.edgeContainer()
	at := "/spec/containers/" + strconv.Itoa(a.edge)
	var env []int
	for i := range edge.Env {
		if slices.Contains(a.dropEnv, edge.Env[i].Name) {
			env = append(env, i)
		}
	}
	p.items(at+"/env", len(edge.Env), env)
	p.items(at+"/volumeMounts", len(edge.VolumeMounts), a.dropMounts)
	if a.proxy != nil { // after the edge, whose index it may change
		list, i := a.indexed(a.proxy)
		length := len(a.pod.Spec.Containers)
		if list == "initContainers" {
			length = len(a.pod.Spec.InitContainers)
		}
		p.items("/spec/"+list, length, []int{i})
	}
	p.pairs("/metadata/labels", a.pod.Labels, a.dropLabels, nil)
	changes := maps.Clone(a.keys)
	maps.Copy(changes, a.setAnnotations)
	p.pairs("/metadata/annotations", a.pod.Annotations, a.dropAnnotations, changes)
	return p.ops
}

type patcher struct{ ops []operations.Operation }

func (p *patcher) add(op, path string, value any) {
	p.ops = append(p.ops, operations.NewOperation(op, path, value))
}

// items removes items of a list, from its end on.
func (p *patcher) items(path string, length int, gone []int) {
	if len(gone) > 0 && len(gone) == length {
		p.add("remove", path, nil)
		return
	}
	for _, i := range slices.Backward(gone) {
		p.add("remove", path+"/"+strconv.Itoa(i), nil)
	}
}

// pairs removes keys of a map, and sets others.
func (p *patcher) pairs(path string, have map[string]string, gone []string, set map[string]string) {
	if have == nil {
		if len(set) > 0 {
			p.add("add", path, set)
		}
		return
	}
	if len(gone) > 0 && len(gone) == len(have) && len(set) == 0 {
		p.add("remove", path, nil)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		switch now, ok := have[key]; {
		case !ok:
			p.add("add", path+"/"+escape(key), set[key])
		case now != set[key]:
			p.add("replace", path+"/"+escape(key), set[key])
		}
	}
	for _, key := range slices.Sorted(slices.Values(gone)) {
		p.add("remove", path+"/"+escape(key), nil)
	}
}

// escape makes a key a segment of a JSON pointer (RFC 6901).
var escape = strings.NewReplacer("~", "~0", "/", "~1").Replace
