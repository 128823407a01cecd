package adopt

import (
	"strings"

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
		a.addError("spec.volumes["+a.volume+"]", "the volume is also mounted in %s, and the agent of Isthmus writes into volume %s; give the volume that name", joinAnd(users), patches.CertsVolume)
	default:
		a.warn("volume %s stays, because it is also mounted in %s", a.volume, joinAnd(users))
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
				a.addError(at+".env["+edge.Env[i].Name+"]", "it refers to %s, which Isthmus adds after it, so that it cannot be resolved; write the value out", name)
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
