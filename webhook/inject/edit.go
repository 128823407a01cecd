package inject

import (
	"encoding/json"
	"strconv"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// inject turns the plan into a patch.
func (s *subject) inject(p plan) Result {
	key := editKey{params: p.params, shape: s.shape(p)}
	if e, ok := s.engine.edits.Get(key); ok {
		return e.(*edit).result()
	}
	e, err := s.edit(p)
	if err != nil {
		return denied(policy.InvalidOverride, err.Error())
	}
	if len(e.encoded)+len(key.shape) <= maxKept {
		s.engine.edits.Add(key, e)
	}
	return e.result()
}

// edit is a finished patch. All pods of a Deployment get the same one.
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

// shape is what an edit depends on besides the sidecar's parameters.
func (s *subject) shape(p plan) string {
	pod := s.Pod
	edge := &pod.Spec.Containers[s.edge]
	b := make([]byte, 0, 512)
	word := func(words ...string) {
		for _, w := range words {
			b = strconv.AppendInt(b, int64(len(w)), 10)
			b = append(b, ':')
			b = append(b, w...)
		}
	}
	word(s.profile.Name, string(s.options.Mode), string(s.options.Delivery), edge.Name)
	b = strconv.AppendInt(b, int64(s.edge), 10)
	for _, isThere := range []bool{
		p.mounted, pod.Labels != nil, pod.Annotations != nil, pod.Spec.Volumes != nil, pod.Spec.InitContainers != nil,
		pod.Spec.ImagePullSecrets != nil, edge.Env != nil, edge.VolumeMounts != nil,
	} {
		b = strconv.AppendBool(b, isThere)
	}
	for _, w := range s.warnings {
		word(w.Code)
	}
	b = append(b, '|')
	for _, e := range p.env {
		word(e.Name, e.Value)
	}
	b = append(b, '|')
	for _, q := range p.labels {
		word(q.key, q.value)
	}
	b = append(b, '|')
	for _, q := range p.annotations {
		word(q.key, q.value)
	}
	b = append(b, '|')
	for _, q := range p.replaced {
		word(q.key, q.was, q.value)
	}
	b = append(b, '|')
	for _, q := range p.replacedLabels {
		word(q.key, q.was, q.value)
	}
	b = append(b, '|')
	word(p.pullSecrets...)
	return string(b)
}

// edit makes the patch. An error means that the pod's overrides contradict each
// other.
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
			InitContainers: r.initPrints,
			Containers:     r.containerPrints,
			Volumes:        r.volumePrints,
			PullSecrets:    p.pullSecrets,
		},
	}
	for _, w := range s.warnings {
		st.Warnings = append(st.Warnings, w.Code)
	}

	e := &editor{status: st}
	e.list("/spec/volumes", pod.Spec.Volumes != nil, r.volumes)
	e.list("/spec/initContainers", pod.Spec.InitContainers != nil, r.initContainers)
	e.list("/spec/containers", true, r.containers)
	at := "/spec/containers/" + strconv.Itoa(s.edge)
	e.list(at+"/env", edge.Env != nil, editEnv(p.env, st))
	if !p.mounted {
		st.Added.Mounts = map[string]string{patches.CertsVolume: p.params.CertDir}
		e.list(at+"/volumeMounts", edge.VolumeMounts != nil, []any{corev1.VolumeMount{
			Name: patches.CertsVolume, MountPath: p.params.CertDir, ReadOnly: true,
		}})
	}
	secrets := make([]any, len(p.pullSecrets))
	for i, name := range p.pullSecrets {
		secrets[i] = corev1.LocalObjectReference{Name: name}
	}
	e.list("/spec/imagePullSecrets", pod.Spec.ImagePullSecrets != nil, secrets)
	st.Added.Labels = e.pairs("/metadata/labels", pod.Labels != nil, p.labels)
	if pod.Annotations == nil {
		st.Added.Fields = append(st.Added.Fields, "/metadata/annotations")
	}
	st.Added.Annotations = asMap(p.annotations)
	st.ReplacedLabels = e.replace("/metadata/labels/", p.replacedLabels)
	st.Replaced = e.replace("/metadata/annotations/", p.replaced)
	e.writePairs("/metadata/annotations", pod.Annotations != nil, append(p.annotations, pair{policy.StatusKey, string(encode(st))}))
	return &edit{ops: e.ops, encoded: encode(e.ops)}, nil
}

func editEnv(env []corev1.EnvVar, st *Status) []any {
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

// editor collects operations and notes which fields they bring into being.
type editor struct {
	ops    []jsonpatch.Operation
	status *Status
}

// list appends items, at the end of the list at path or as a list of its own.
func (e *editor) list(path string, exists bool, items []any) {
	if len(items) == 0 {
		return
	}
	if !exists {
		e.status.Added.Fields = append(e.status.Added.Fields, path)
		e.ops = append(e.ops, jsonpatch.NewOperation("add", path, items))
		return
	}
	for _, item := range items {
		e.ops = append(e.ops, jsonpatch.NewOperation("add", path+"/-", item))
	}
}

// pairs adds to a map and returns what it added.
func (e *editor) pairs(path string, exists bool, pairs []pair) map[string]string {
	if len(pairs) == 0 {
		return nil
	}
	if !exists {
		e.status.Added.Fields = append(e.status.Added.Fields, path)
	}
	e.writePairs(path, exists, pairs)
	return asMap(pairs)
}

func (e *editor) writePairs(path string, exists bool, pairs []pair) {
	if !exists {
		e.ops = append(e.ops, jsonpatch.NewOperation("add", path, asMap(pairs)))
		return
	}
	for _, p := range pairs {
		e.ops = append(e.ops, jsonpatch.NewOperation("add", path+"/"+escape(p.key), p.value))
	}
}

// replace gives what is below path another value, and returns the one it had.
func (e *editor) replace(path string, list []replacement) map[string]Replaced {
	if len(list) == 0 {
		return nil
	}
	noted := make(map[string]Replaced, len(list))
	for _, r := range list {
		noted[r.key] = Replaced{Was: r.was, Value: r.value}
		e.ops = append(e.ops, jsonpatch.NewOperation("replace", path+escape(r.key), r.value))
	}
	return noted
}

func asMap(pairs []pair) map[string]string {
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		m[p.key] = p.value
	}
	return m
}

// escape makes a key a segment of a JSON pointer (RFC 6901).
var escape = strings.NewReplacer("~", "~0", "/", "~1").Replace

// rendering is a rendered sidecar in the forms that an edit needs.
type rendering struct {
	sidecar                             *patches.Sidecar
	initContainers, containers, volumes []any
	initPrints, containerPrints         map[string]Prints
	volumePrints                        map[string]string
}

func (e *Engine) render(p patches.Params) (*rendering, error) {
	if r, ok := e.rendered.Get(p); ok {
		return r.(*rendering), nil
	}
	sidecar, err := e.template.Render(p)
	if err != nil {
		return nil, err
	}
	r := &rendering{sidecar: sidecar, volumePrints: map[string]string{}}
	if c := &sidecar.Container; c.Name != "" {
		r.initContainers = []any{encode(c)}
		r.initPrints = map[string]Prints{c.Name: printContainer(c)}
	}
	if c := sidecar.Publisher; c != nil {
		r.containers = []any{encode(c)}
		r.containerPrints = map[string]Prints{c.Name: printContainer(c)}
	}
	for i := range sidecar.Volumes {
		r.volumes = append(r.volumes, encode(sidecar.Volumes[i]))
		r.volumePrints[sidecar.Volumes[i].Name] = printVolume(&sidecar.Volumes[i])
	}
	if r.size() <= maxKept {
		e.rendered.Add(p, r)
	}
	return r, nil
}

// size is that of what is written into the pod, in bytes.
func (r *rendering) size() int {
	n := 0
	for _, list := range [][]any{r.initContainers, r.containers, r.volumes} {
		for _, item := range list {
			n += len(item.(json.RawMessage))
		}
	}
	return n
}

// encode is for our own and Kubernetes' own types, which always can be; the
// webhook answers a panic with HTTP 500.
func encode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
