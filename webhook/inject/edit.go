package inject

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// inject turns the plan into a patch, or returns the patch from the cache.
func (s *subject) inject(p plan) Result {
	key := editKey{params: p.params, shape: s.shape(p)}
	if e, ok := s.engine.edits.get(key); ok {
		return e.result()
	}
	e, err := s.edit(p)
	if err != nil {
		return s.refuse(policy.InvalidOverride, err.Error())
	}
	s.engine.edits.add(key.clone(), e, len(key.shape)+e.size())
	return e.result()
}

// edit is a patch. All pods of a Deployment get the same one.
type edit struct {
	ops     []jsonpatch.Operation
	encoded []byte
}

// size returns about how many bytes the edit takes in memory.
func (e *edit) size() int { return 2*len(e.encoded) + 1<<10 }

func (e *edit) result() Result {
	return Result{Reason: policy.Injected, Patch: e.ops, EncodedPatch: e.encoded}
}

// editKey is everything that an edit depends on.
type editKey struct {
	params patches.Params
	shape  string
}

// clone returns a key that does not keep the pod's text in memory.
func (k editKey) clone() editKey {
	k.params = k.params.Clone()
	return k
}

// shape encodes what an edit depends on besides the sidecar's parameters. Each text is
// preceded by its length, so that different pods never have the same shape.
func (s *subject) shape(p plan) string {
	pod := s.Pod
	edge := &pod.Spec.Containers[s.edge]
	b := make([]byte, 0, 512)
	text := func(texts ...string) {
		for _, t := range texts {
			b = strconv.AppendInt(b, int64(len(t)), 10)
			b = append(b, ':')
			b = append(b, t...)
		}
	}
	text(s.profile.Name, string(s.options.Mode), string(s.options.Delivery), edge.Name)
	b = strconv.AppendInt(b, int64(s.edge), 10)
	for _, exists := range []bool{
		p.mounted, pod.Labels != nil, pod.Annotations != nil, pod.Spec.Volumes != nil, pod.Spec.InitContainers != nil,
		pod.Spec.ImagePullSecrets != nil, edge.Env != nil, edge.VolumeMounts != nil,
	} {
		b = strconv.AppendBool(b, exists)
	}
	text(s.warningCodes()...)
	b = append(b, '|')
	for _, e := range p.env {
		text(e.Name, e.Value)
	}
	b = append(b, '|')
	for _, q := range p.labels {
		text(q.key, q.value)
	}
	b = append(b, '|')
	for _, q := range p.annotations {
		text(q.key, q.value)
	}
	b = append(b, '|')
	for _, q := range p.replacedAnnotations {
		text(q.key, q.was, q.value)
	}
	b = append(b, '|')
	for _, q := range p.replacedLabels {
		text(q.key, q.was, q.value)
	}
	b = append(b, '|')
	text(p.pullSecrets...)
	return string(b)
}

// edit builds the patch. It is an error if the pod's overrides contradict each other, or
// if the status would be longer than what is read of one.
func (s *subject) edit(p plan) (*edit, error) {
	r, err := s.engine.render(p.params)
	if err != nil {
		return nil, err
	}
	pod := s.Pod
	edge := &pod.Spec.Containers[s.edge]
	st := &Status{
		Schema:    statusSchema,
		Version:   s.engine.version,
		Mode:      s.options.Mode,
		Profile:   s.profile.Name,
		Delivery:  s.options.Delivery,
		Template:  r.sidecar.Hash,
		CertDir:   p.params.CertDir,
		Container: edge.Name,
		Warnings:  s.warningCodes(),
		Added: Added{
			InitContainers: r.initFingerprints,
			Containers:     r.fingerprints,
			Volumes:        r.volumeFingerprints,
			PullSecrets:    p.pullSecrets,
		},
	}
	b := &patchBuilder{status: st}
	b.addItems("/spec/volumes", pod.Spec.Volumes != nil, r.volumes)
	b.addItems("/spec/initContainers", pod.Spec.InitContainers != nil, r.initContainers)
	b.addItems("/spec/containers", true, r.containers)
	edgePath := "/spec/containers/" + strconv.Itoa(s.edge)
	b.addItems(edgePath+"/env", edge.Env != nil, recordEnv(p.env, st))
	if !p.mounted {
		st.Added.Mounts = map[string]string{patches.CertsVolume: p.params.CertDir}
		b.addItems(edgePath+"/volumeMounts", edge.VolumeMounts != nil, []any{corev1.VolumeMount{
			Name: patches.CertsVolume, MountPath: p.params.CertDir, ReadOnly: true,
		}})
	}
	secrets := make([]any, len(p.pullSecrets))
	for i, name := range p.pullSecrets {
		secrets[i] = corev1.LocalObjectReference{Name: name}
	}
	b.addItems("/spec/imagePullSecrets", pod.Spec.ImagePullSecrets != nil, secrets)
	st.Added.Labels = b.addPairs("/metadata/labels", pod.Labels != nil, p.labels)
	if pod.Annotations == nil {
		st.Added.Fields = append(st.Added.Fields, "/metadata/annotations")
	}
	st.Added.Annotations = asMap(p.annotations)
	st.ReplacedLabels = b.replaceValues("/metadata/labels/", p.replacedLabels)
	st.Replaced = b.replaceValues("/metadata/annotations/", p.replacedAnnotations)
	status := encode(st)
	if len(status) > maxStatusBytes {
		return nil, fmt.Errorf("annotation %s would hold %d bytes, and at most %d are read; shorten the annotations that it repeats (%s)",
			policy.StatusKey, len(status), maxStatusBytes, strings.Join(slices.Sorted(maps.Keys(st.Replaced)), ", "))
	}
	b.writePairs("/metadata/annotations", pod.Annotations != nil, append(p.annotations, keyValue{policy.StatusKey, string(status)}))
	return &edit{ops: b.ops, encoded: encode(b.ops)}, nil
}

// warningCodes returns the codes of the injection's warnings.
func (s *subject) warningCodes() []string {
	return policy.WarningCodes(slices.Concat(s.warnings, s.keyWarnings))
}

// recordEnv notes the variables in the status and returns them as items.
func recordEnv(env []corev1.EnvVar, st *Status) []any {
	if len(env) == 0 {
		return nil
	}
	st.Added.Env = make(map[string]string, len(env))
	values := make([]any, len(env))
	for i, v := range env {
		st.Added.Env[v.Name] = v.Value
		values[i] = v
	}
	return values
}
