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

// Uninject returns the operations that revert an injection. It reads only the pod and
// its status annotation. A pod without a status needs no operation. If something that
// Isthmus added has been changed or removed since, the error names every such field.
func Uninject(pod *corev1.Pod) ([]jsonpatch.Operation, error) {
	text, ok := pod.Annotations[policy.StatusKey]
	if !ok {
		return nil, nil
	}
	st, err := parseStatus(text)
	if err != nil {
		return nil, err
	}
	if err := st.checkUnderstood(text); err != nil {
		return nil, err
	}
	edge := containerIndex(pod.Spec.Containers, st.Container)
	if edge < 0 {
		return nil, fmt.Errorf("spec.containers: the edge container %s is gone", st.Container)
	}
	r := &reverter{added: st.Added}
	r.removeContainers("initContainers", pod.Spec.InitContainers, st.Added.InitContainers)
	r.removeVolumes(pod)
	r.checkIstioMounts(pod)
	r.revertEdge(pod, edge)
	// Last of the containers, because a removal would change the edge's index.
	r.removeContainers("containers", pod.Spec.Containers, st.Added.Containers)
	r.removePullSecrets(pod)
	r.restoreValues("labels", pod.Labels, st.ReplacedLabels)
	r.removePairs("metadata.labels", "/metadata/labels", pod.Labels, st.Added.Labels)
	annotations := maps.Clone(st.Added.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[policy.StatusKey] = text
	r.restoreValues("annotations", pod.Annotations, st.Replaced)
	r.removePairs("metadata.annotations", "/metadata/annotations", pod.Annotations, annotations)
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	return r.ops, nil
}

// reverter collects operations. It removes items from the end of a list to its beginning,
// so that the indexes of the remaining items stay valid.
type reverter struct {
	added Added
	ops   []jsonpatch.Operation
	errs  []error
}

// reportChange adds an error about something that was changed since the injection.
func (r *reverter) reportChange(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format+"; restore it, or remove by hand what Isthmus added", args...))
}

// removeItems removes the items at the indexes. It removes the whole field if the
// injection added the field and nothing else is in it.
func (r *reverter) removeItems(path string, length int, indexes []int) {
	if len(indexes) == 0 {
		return
	}
	if len(indexes) == length && slices.Contains(r.added.Fields, path) {
		r.ops = append(r.ops, jsonpatch.NewOperation("remove", path, nil))
		return
	}
	slices.Sort(indexes)
	for _, i := range slices.Backward(indexes) {
		r.ops = append(r.ops, jsonpatch.NewOperation("remove", path+"/"+strconv.Itoa(i), nil))
	}
}

func (r *reverter) removeContainers(list string, containers []corev1.Container, added map[string]Fingerprints) {
	var found []int
	for _, name := range slices.Sorted(maps.Keys(added)) {
		i := containerIndex(containers, name)
		if i < 0 {
			r.reportChange("spec.%s: %s is gone", list, name)
			continue
		}
		if field := added[name].changedField(&containers[i]); field != "" {
			r.reportChange("spec.%s[%d].%s: container %s was changed since it was injected", list, i, field, name)
		}
		found = append(found, i)
	}
	r.removeItems("/spec/"+list, len(containers), found)
}

func (r *reverter) removeVolumes(pod *corev1.Pod) {
	var found []int
	for _, name := range slices.Sorted(maps.Keys(r.added.Volumes)) {
		i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
		switch {
		case i < 0:
			r.reportChange("spec.volumes: %s is gone", name)
			continue
		case fingerprintVolume(&pod.Spec.Volumes[i]) != r.added.Volumes[name]:
			r.reportChange("spec.volumes[%d]: volume %s was changed since it was injected", i, name)
		}
		found = append(found, i)
	}
	r.removeItems("/spec/volumes", len(pod.Spec.Volumes), found)
}

// revertEdge removes variables and mounts of the edge container.
func (r *reverter) revertEdge(pod *corev1.Pod, edge int) {
	c := &pod.Spec.Containers[edge]
	at, field := "/spec/containers/"+strconv.Itoa(edge), fmt.Sprintf("spec.containers[%d]", edge)
	var found []int
	for _, name := range slices.Sorted(maps.Keys(r.added.Env)) {
		i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name })
		switch {
		case i < 0:
			r.reportChange("%s.env: %s is gone", field, name)
			continue
		case c.Env[i].Value != r.added.Env[name]:
			r.reportChange("%s.env[%d]: %s is %q and was %q when it was injected", field, i, name, c.Env[i].Value, r.added.Env[name])
		}
		found = append(found, i)
	}
	r.removeItems(at+"/env", len(c.Env), found)
	found = nil
	for _, name := range slices.Sorted(maps.Keys(r.added.Mounts)) {
		dir := r.added.Mounts[name]
		i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == name && m.MountPath == dir })
		if i < 0 {
			r.reportChange("%s.volumeMounts: the mount of %s at %s is gone", field, name, dir)
			continue
		}
		found = append(found, i)
	}
	r.removeItems(at+"/volumeMounts", len(c.VolumeMounts), found)
}

func (r *reverter) removePullSecrets(pod *corev1.Pod) {
	var found []int
	for _, name := range r.added.PullSecrets {
		i := slices.IndexFunc(pod.Spec.ImagePullSecrets, func(ref corev1.LocalObjectReference) bool { return ref.Name == name })
		if i < 0 {
			r.reportChange("spec.imagePullSecrets: %s is gone", name)
			continue
		}
		found = append(found, i)
	}
	r.removeItems("/spec/imagePullSecrets", len(pod.Spec.ImagePullSecrets), found)
}

// checkIstioMounts finds volumes that cannot be removed, because the sidecar that Istio's
// injector added after Isthmus mounts them.
func (r *reverter) checkIstioMounts(pod *corev1.Pod) {
	if _, ours := r.added.InitContainers[patches.SidecarName]; ours || pod.Annotations[policy.IstioStatusKey] == "" {
		return
	}
	for n, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		i := containerIndex(list, patches.SidecarName)
		if i < 0 {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(r.added.Volumes)) {
			if FindMount(&list[i], name) != nil {
				r.errs = append(r.errs, fmt.Errorf("spec.%s[%d].volumeMounts: container %s, which Istio's injector added, mounts volume %s; uninject the template that the pod was created from",
					[]string{"initContainers", "containers"}[n], i, patches.SidecarName, name))
			}
		}
	}
}

// restoreValues restores the previous values of annotations or labels.
func (r *reverter) restoreValues(field string, current map[string]string, replaced map[string]Replaced) {
	for _, key := range slices.Sorted(maps.Keys(replaced)) {
		if now, ok := current[key]; !ok {
			r.reportChange("metadata.%s: %s is gone", field, key)
		} else if now != replaced[key].Value {
			r.reportChange("metadata.%s: %s is %q and was %q when it was injected", field, key, now, replaced[key].Value)
		}
		r.ops = append(r.ops, jsonpatch.NewOperation("replace", "/metadata/"+field+"/"+escape(key), replaced[key].Was))
	}
}

// removePairs removes annotations or labels.
func (r *reverter) removePairs(field, path string, current, added map[string]string) {
	if len(added) == 0 {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(added)) {
		if now, ok := current[key]; !ok {
			r.reportChange("%s: %s is gone", field, key)
		} else if now != added[key] {
			r.reportChange("%s: %s is %q and was %q when it was injected", field, key, now, added[key])
		}
	}
	if len(added) == len(current) && slices.Contains(r.added.Fields, path) {
		r.ops = append(r.ops, jsonpatch.NewOperation("remove", path, nil))
		return
	}
	for _, key := range slices.Sorted(maps.Keys(added)) {
		r.ops = append(r.ops, jsonpatch.NewOperation("remove", path+"/"+escape(key), nil))
	}
}
