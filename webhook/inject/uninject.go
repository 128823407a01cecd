package inject

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Uninject returns the operations that take an injection back, from the pod's
// status alone. A pod without a status needs none. It refuses, naming every
// field, where something that Isthmus added was changed since.
func Uninject(pod *corev1.Pod) ([]jsonpatch.Operation, error) {
	text, ok := pod.Annotations[policy.StatusKey]
	if !ok {
		return nil, nil
	}
	st, err := parseStatus(text)
	if err != nil {
		return nil, err
	}
	edge := containerIndex(pod.Spec.Containers, st.Container)
	if edge < 0 {
		return nil, fmt.Errorf("spec.containers: the edge container %s is gone", st.Container)
	}
	u := &undo{added: st.Added}
	u.containers("initContainers", pod.Spec.InitContainers, st.Added.InitContainers)
	u.volumes(pod)
	u.mounts(pod)
	u.edge(pod, edge)
	// After the edge, whose index a removal before it would change.
	u.containers("containers", pod.Spec.Containers, st.Added.Containers)
	u.pullSecrets(pod)
	u.restore("labels", pod.Labels, st.ReplacedLabels)
	u.pairs("metadata.labels", "/metadata/labels", pod.Labels, st.Added.Labels)
	annotations := maps.Clone(st.Added.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[policy.StatusKey] = text
	u.restore("annotations", pod.Annotations, st.Replaced)
	u.pairs("metadata.annotations", "/metadata/annotations", pod.Annotations, annotations)
	if len(u.errs) > 0 {
		return nil, errors.Join(u.errs...)
	}
	return u.ops, nil
}

// undo collects removals, from the end of a list to its beginning, so that the
// indexes of those to come stay true.
type undo struct {
	added Added
	ops   []jsonpatch.Operation
	errs  []error
}

func (u *undo) changed(format string, args ...any) {
	u.errs = append(u.errs, fmt.Errorf(format+"; put it back, or remove what Isthmus added by hand", args...))
}

// items removes the items at the indexes, or the whole field when the
// injection made it and nothing else is in it.
func (u *undo) items(path string, length int, indexes []int) {
	if len(indexes) == 0 {
		return
	}
	if len(indexes) == length && slices.Contains(u.added.Fields, path) {
		u.ops = append(u.ops, jsonpatch.NewOperation("remove", path, nil))
		return
	}
	slices.Sort(indexes)
	for _, i := range slices.Backward(indexes) {
		u.ops = append(u.ops, jsonpatch.NewOperation("remove", path+"/"+strconv.Itoa(i), nil))
	}
}

func (u *undo) containers(list string, have []corev1.Container, added map[string]Prints) {
	var found []int
	for _, name := range slices.Sorted(maps.Keys(added)) {
		i := containerIndex(have, name)
		if i < 0 {
			u.changed("spec.%s: %s is gone", list, name)
			continue
		}
		if field := added[name].changedField(&have[i]); field != "" {
			u.changed("spec.%s[%d].%s: container %s was changed since it was injected", list, i, field, name)
		}
		found = append(found, i)
	}
	u.items("/spec/"+list, len(have), found)
}

func (u *undo) volumes(pod *corev1.Pod) {
	var found []int
	for _, name := range slices.Sorted(maps.Keys(u.added.Volumes)) {
		i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
		switch {
		case i < 0:
			u.changed("spec.volumes: %s is gone", name)
			continue
		case printVolume(&pod.Spec.Volumes[i]) != u.added.Volumes[name]:
			u.changed("spec.volumes[%d]: volume %s was changed since it was injected", i, name)
		}
		found = append(found, i)
	}
	u.items("/spec/volumes", len(pod.Spec.Volumes), found)
}

func (u *undo) edge(pod *corev1.Pod, edge int) {
	c := &pod.Spec.Containers[edge]
	at, field := "/spec/containers/"+strconv.Itoa(edge), fmt.Sprintf("spec.containers[%d]", edge)
	var found []int
	for _, name := range slices.Sorted(maps.Keys(u.added.Env)) {
		i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name })
		switch {
		case i < 0:
			u.changed("%s.env: %s is gone", field, name)
			continue
		case c.Env[i].Value != u.added.Env[name]:
			u.changed("%s.env[%d]: %s is %q and was %q when it was injected", field, i, name, c.Env[i].Value, u.added.Env[name])
		}
		found = append(found, i)
	}
	u.items(at+"/env", len(c.Env), found)
	found = nil
	for _, name := range slices.Sorted(maps.Keys(u.added.Mounts)) {
		dir := u.added.Mounts[name]
		i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == name && m.MountPath == dir })
		if i < 0 {
			u.changed("%s.volumeMounts: the mount of %s at %s is gone", field, name, dir)
			continue
		}
		found = append(found, i)
	}
	u.items(at+"/volumeMounts", len(c.VolumeMounts), found)
}

func (u *undo) pullSecrets(pod *corev1.Pod) {
	var found []int
	for _, name := range u.added.PullSecrets {
		i := slices.IndexFunc(pod.Spec.ImagePullSecrets, func(r corev1.LocalObjectReference) bool { return r.Name == name })
		if i < 0 {
			u.changed("spec.imagePullSecrets: %s is gone", name)
			continue
		}
		found = append(found, i)
	}
	u.items("/spec/imagePullSecrets", len(pod.Spec.ImagePullSecrets), found)
}

// mounts finds volumes that would go from under the sidecar that Istio's injector
// put there after us.
func (u *undo) mounts(pod *corev1.Pod) {
	if pod.Annotations[policy.IstioStatusKey] == "" {
		return
	}
	for n, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		i := containerIndex(list, patches.SidecarName)
		if i < 0 {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(u.added.Volumes)) {
			if FindMount(&list[i], name) != nil {
				u.errs = append(u.errs, fmt.Errorf("spec.%s[%d].volumeMounts: container %s, which Istio's injector added, mounts volume %s; take back the template that the pod was made from",
					[]string{"initContainers", "containers"}[n], i, patches.SidecarName, name))
			}
		}
	}
}

// restore gives annotations or labels the value back that they had.
func (u *undo) restore(field string, have map[string]string, replaced map[string]Replaced) {
	for _, key := range slices.Sorted(maps.Keys(replaced)) {
		if now, ok := have[key]; !ok {
			u.changed("metadata.%s: %s is gone", field, key)
		} else if now != replaced[key].Value {
			u.changed("metadata.%s: %s is %q and was %q when it was injected", field, key, now, replaced[key].Value)
		}
		u.ops = append(u.ops, jsonpatch.NewOperation("replace", "/metadata/"+field+"/"+escape(key), replaced[key].Was))
	}
}

func (u *undo) pairs(field, path string, have, added map[string]string) {
	if len(added) == 0 {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(added)) {
		if now, ok := have[key]; !ok {
			u.changed("%s: %s is gone", field, key)
		} else if now != added[key] {
			u.changed("%s: %s is %q and was %q when it was injected", field, key, now, added[key])
		}
	}
	if len(added) == len(have) && slices.Contains(u.added.Fields, path) {
		u.ops = append(u.ops, jsonpatch.NewOperation("remove", path, nil))
		return
	}
	for _, key := range slices.Sorted(maps.Keys(added)) {
		u.ops = append(u.ops, jsonpatch.NewOperation("remove", path+"/"+escape(key), nil))
	}
}
