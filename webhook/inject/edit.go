package inject

import (
	"strconv"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// inject turns the plan into a patch, or returns the patch from the cache.
func (s *subject) inject(p plan) Result {
	key := editKey{params: p.params, shape: s.shape(p)}
	if e, ok := s.engine.edits.Get(key); ok {
		return e.(*edit).result()
	}
	e, err := s.edit(p)
	if err != nil {
		return denied(policy.InvalidOverride, err.Error())
	}
	if len(e.encoded)+len(key.shape) <= maxCachedBytes {
		s.engine.edits.Add(key, e)
	}
	return e.result()
}

// edit is a patch. All pods of a Deployment get the same one.
type edit struct {
	ops     []jsonpatch.Operation
	encoded []byte
}

func (e *edit) result() Result {
	return Result{Reason: policy.Injected, Patch: e.ops, EncodedPatch: e.encoded}
}

// editKey is everything that an edit depends on.
type editKey struct {
	params patches.Params
	shape  string
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
	for _, w := range s.warnings {
		text(w.Code)
	}
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

// edit builds the patch. It is an error if the pod's overrides contradict each other.
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
		Added: Added{
			InitContainers: r.initFingerprints,
			Containers:     r.fingerprints,
			Volumes:        r.volumeFingerprints,
			PullSecrets:    p.pullSecrets,
		},
	}
	for _, w := range s.warnings {
		st.Warnings = append(st.Warnings, w.Code)
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
	b.writePairs("/metadata/annotations", pod.Annotations != nil, append(p.annotations, keyValue{policy.StatusKey, string(encode(st))}))
	return &edit{ops: b.ops, encoded: encode(b.ops)}, nil
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
