// Package adopt turns a pod that is integrated with Istio by hand into a plain
// one that Isthmus integrates, and says in which fields two pods differ and why.
// It is pure, as webhook/inject is, and used by the command line alone.
package adopt

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	operations "gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// envoyBaseEnv keeps two Envoys in one network apart.
const envoyBaseEnv = "AMBASSADOR_ENVOY_BASE_ID"

// Options are the user's choices in an adoption.
type Options struct {
	// ByNamespace leaves the pod without isthmus.dev/inject: the user labels its
	// namespace instead. Default false.
	ByNamespace bool
	// KeepImage pins the image of the sidecar written by hand. Default false: the
	// mesh says which one.
	KeepImage bool
	// KeepLabels must stay on the pod, for a selector names them.
	KeepLabels []string
}

// Adoption is what Adopt found and how to make it plain.
type Adoption struct {
	// Reason is Injected when the pod can be adopted: then its plain form is
	// injected. Any other says why Isthmus does not look at the pod. It is empty
	// for an edge that is not integrated by hand.
	Reason policy.Reason
	// Profile and Mode are those that the plain pod is injected with.
	Profile string
	Mode    policy.Mode
	// Found says in a few words how the pod was integrated.
	Found string
	// Warnings are sentences for the user.
	Warnings []string
	// Patch turns the pod into the plain one, to be applied in order.
	Patch []operations.Operation
	// Differences are between the pod and its plain form once that is injected.
	Differences []Difference
}

// Adopt says how to turn a pod that is integrated with Istio by hand into a plain
// one that Isthmus integrates. An error names every field that cannot be adopted
// faithfully, and the way out. A pod without such an integration has no patch and
// no error.
func Adopt(engine *inject.Engine, req inject.Request, o Options) (Adoption, error) {
	settings := engine.Settings()
	options, problem := policy.Resolve(req.Pod.Labels, req.Pod.Annotations, req.Namespace, settings.Defaults, settings.SecretNames)
	verdict := policy.Decide(req.Pod.Labels, req.Pod.Annotations, policy.Namespace{Name: req.Namespace.Name, Labels: labelled(nil)}, settings.ExcludedNamespaces)
	if verdict.Asked == policy.Nobody && !verdict.Denied {
		return Adoption{Reason: verdict.Reason}, nil
	}
	if inject.IsWindows(&req.Pod.Spec) {
		return Adoption{Reason: policy.UnsupportedOS}, nil
	}
	edge, reason, message := engine.FindEdge(req, options)
	if reason != "" {
		if reason == policy.NoProfile {
			return Adoption{Reason: reason, Warnings: unrecognised(req.Pod)}, nil
		}
		if !looksWritten(req.Pod) {
			return Adoption{Reason: reason}, nil
		}
		return Adoption{}, errors.New(message)
	}
	a := &adopter{pod: req.Pod, edge: edge.Container, options: options, choice: o}
	a.plan()
	switch err := errors.Join(a.errs...); {
	case err == nil && a.style == "":
		return Adoption{Profile: edge.Profile}, nil // whatever else may be wrong with it
	case verdict.Denied:
		return Adoption{}, errors.New(verdict.Message)
	case problem != nil:
		return Adoption{}, errors.New(problem.Message)
	case err != nil:
		return Adoption{}, err
	}
	return finish(engine, req, a)
}

// looksWritten: something in the pod may be an integration by hand, though no edge
// can be told.
func looksWritten(pod *corev1.Pod) bool {
	return writtenAgent(pod, -1) != nil || strings.Contains(pod.Annotations[policy.IstioProxyConfigKey], "OUTPUT_CERTS") || len(unrecognised(pod)) > 0
}

// unrecognised warns of what must be an edge, since only one reads certificates
// that way, but that no profile knows: a mirrored image, or a patch without one.
func unrecognised(pod *corev1.Pod) (warnings []string) {
	eachContainer(pod, func(_ string, _ int, c *corev1.Container) {
		if inject.FindEnv(c, inject.SecretDirEnv) != nil {
			warnings = append(warnings, fmt.Sprintf("container %s sets %s, but no profile recognises an edge in image %q; name one with annotation %s and adopt it again", c.Name, inject.SecretDirEnv, c.Image, policy.ProfileKey))
		}
	})
	return warnings
}

// finish makes the patch, and injects its outcome: what would be refused later is
// said now.
func finish(engine *inject.Engine, req inject.Request, a *adopter) (Adoption, error) {
	out := Adoption{Reason: policy.Injected, Found: a.style, Warnings: a.warnings, Patch: a.patch()}
	plain, err := applied(req.Pod, out.Patch)
	if err != nil {
		return Adoption{}, err
	}
	req.Pod = plain
	req.Namespace.Labels = labelled(req.Namespace.Labels)
	result := engine.Inject(req)
	if result.Reason != policy.Injected {
		return Adoption{}, fmt.Errorf("what is left cannot be injected (%s): %s", result.Reason, said(result))
	}
	injected, err := applied(plain, result.Patch)
	if err != nil {
		return Adoption{}, err
	}
	out.Profile, out.Mode = result.Profile, result.Mode
	out.Differences = Compare(a.pod, injected)
	out.Warnings = append(out.Warnings, otherMesh(a.proxy, agentOf(injected))...)
	return out, nil
}

// labelled opts a namespace in, unless it locks itself.
func labelled(labels map[string]string) map[string]string {
	out := map[string]string{policy.InjectionLabel: policy.InjectionEnabled}
	maps.Copy(out, labels)
	return out
}

func said(r inject.Result) string {
	if r.Message != "" || len(r.Warnings) == 0 {
		return r.Message
	}
	return r.Warnings[0].Text
}

// applied is a pod with a patch carried out.
func applied(pod *corev1.Pod, patch []operations.Operation) (*corev1.Pod, error) {
	out := pod.DeepCopy()
	if len(patch) == 0 {
		return out, nil
	}
	decoded, err := jsonpatch.DecodePatch(encode(patch))
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	after, err := decoded.Apply(encode(pod))
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	*out = corev1.Pod{}
	if err := json.Unmarshal(after, out); err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	return out, nil
}

// adopter is one pod on its way to a plain one.
type adopter struct {
	pod     *corev1.Pod
	edge    int
	options policy.Options
	choice  Options

	// style says how the pod is integrated; empty when it is not.
	style string
	// byIstio: Istio's injector adds the sidecar, so mode istio takes its place.
	byIstio bool
	// proxy is the sidecar written by hand, nil where there is none.
	proxy *corev1.Container
	// volume holds the certificates. Empty when no volume does.
	volume string
	// dir is where the edge finds them.
	dir string

	keys            map[string]string
	dropAnnotations []string
	dropLabels      []string
	setAnnotations  map[string]string
	dropVolumes     []string
	dropEnv         []string
	dropMounts      []int
	warnings        []string
	errs            []error
}

// fail notes a field that cannot be adopted, and the way out.
func (a *adopter) fail(field, format string, args ...any) {
	a.errs = append(a.errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
}

func (a *adopter) warn(format string, args ...any) {
	a.warnings = append(a.warnings, fmt.Sprintf(format, args...))
}

// key adds an annotation that stands for something that goes. One of another
// value is the user's, and contradicts.
func (a *adopter) key(key, value, instead string) {
	if have, ok := a.pod.Annotations[key]; ok && have != value {
		a.fail("metadata.annotations["+key+"]", "it is %q, and %s says %q; make them agree", have, instead, value)
		return
	}
	a.keys[key] = value
}

// plan decides what goes and what comes.
func (a *adopter) plan() {
	a.keys, a.setAnnotations = map[string]string{}, map[string]string{}
	a.proxy = writtenAgent(a.pod, a.edge)
	if !a.recognise() {
		return
	}
	a.findDirectory()
	if a.proxy != nil {
		a.takeProxy()
	}
	a.takeAnnotations()
	a.takeVolume()
	a.takeEdge()
	a.addKeys()
}

// addKeys writes down what is to take the integration's place.
func (a *adopter) addKeys() {
	mode := policy.Sidecar
	if a.byIstio {
		mode = policy.Istio
	}
	if a.options.Mode != mode || a.byIstio {
		a.key(policy.ModeKey, string(mode), "the integration by hand")
	}
	if a.dir != "" && a.dir != a.options.CertDir {
		a.key(policy.CertDirKey, a.dir, "the certificates' directory")
	}
	if a.choice.ByNamespace {
		return
	}
	if a.pod.Labels[policy.InjectKey] != "true" {
		a.key(policy.InjectKey, "true", "adopting it")
	}
}

// writtenAgent finds the sidecar that somebody wrote by hand: the container
// istio-proxy, or one of another name that runs Istio's agent for certificates.
func writtenAgent(pod *corev1.Pod, edge int) *corev1.Container {
	if proxy := inject.FindSidecar(pod); proxy != nil {
		return proxy
	}
	var found *corev1.Container
	eachContainer(pod, func(list string, i int, c *corev1.Container) {
		isEdge := list == "containers" && i == edge
		if found == nil && !isEdge && inject.WritesCertificates(c) {
			found = c
		}
	})
	return found
}

// edgeContainer is the container of the edge, and its path.
func (a *adopter) edgeContainer() (*corev1.Container, string) {
	return &a.pod.Spec.Containers[a.edge], fmt.Sprintf("spec.containers[%d]", a.edge)
}

// indexed finds a container in its list.
func (a *adopter) indexed(c *corev1.Container) (list string, index int) {
	eachContainer(a.pod, func(l string, i int, have *corev1.Container) {
		if have == c {
			list, index = l, i
		}
	})
	return list, index
}

// others names the containers that mount a volume, but for edge and sidecar.
func (a *adopter) others(volume string) []string {
	var names []string
	edge, _ := a.edgeContainer()
	eachContainer(a.pod, func(list string, i int, c *corev1.Container) {
		if c == edge || c == a.proxy {
			return
		}
		uses := inject.FindMount(c, volume) != nil || slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == volume })
		if uses {
			names = append(names, fmt.Sprintf("spec.%s[%d] (%s)", list, i, c.Name))
		}
	})
	return names
}

// several writes a list for a sentence.
func several(names []string) string { return strings.Join(names, " and ") }

// encode is for our own and Kubernetes' own types, which always can be.
func encode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
