// Package adopt turns a pod that is integrated with Istio by hand into a plain pod,
// which Isthmus integrates. It also compares two pods, and explains each field in
// which they differ. It is pure, as webhook/inject is. Only the command line uses it.
package adopt

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	operations "gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// envoyBaseIDEnv is the variable that gives the edge's Envoy a base ID. Two Envoys in one
// network namespace need different ones.
const envoyBaseIDEnv = "AMBASSADOR_ENVOY_BASE_ID"

// Options are the user's choices.
type Options struct {
	// ByNamespace does not add isthmus.dev/inject to the pod, because the user labels
	// its namespace instead. Default false.
	ByNamespace bool
	// KeepImage keeps the image of the manual sidecar. Default false: the mesh
	// settings name the image.
	KeepImage bool
	// KeepLabels must stay on the pod, because a selector uses them. Default: none.
	KeepLabels []string
}

// Adoption is the integration that Adopt has found, and the patch that removes it.
type Adoption struct {
	// Reason is Injected if the pod can be adopted, because Isthmus then injects the
	// plain pod. Any other reason says why Isthmus ignores the pod. It is empty for an
	// edge that is not integrated by hand.
	Reason policy.Reason
	// Profile and Mode are those with which Isthmus injects the plain pod.
	Profile string
	Mode    policy.Mode
	// Found says in a few words how the pod is integrated by hand.
	Found string
	// Warnings are sentences for the user.
	Warnings []string
	// Patch turns the pod into the plain one. Its operations are applied in order.
	Patch []operations.Operation
	// Differences are those between the pod and the plain pod after its injection.
	Differences []Difference
}

// Adopt computes the patch that turns a pod that is integrated with Istio by hand into a
// plain one, which Isthmus injects. The error names every field that cannot be adopted
// without a loss, and the way out. A pod that is not integrated by hand has no patch and
// no error.
func Adopt(engine *inject.Engine, req inject.Request, o Options) (Adoption, error) {
	settings := engine.Settings()
	options, problem := policy.Resolve(req.Pod.Labels, req.Pod.Annotations, req.Namespace, settings.Defaults, settings.Names())
	verdict := policy.Decide(req.Pod.Labels, req.Pod.Annotations, policy.Namespace{Name: req.Namespace.Name, Labels: withInjectionLabel(nil)}, settings.ExcludedNamespaces)
	if verdict.OptIn == policy.NotOptedIn && !verdict.Denied {
		return Adoption{Reason: verdict.Reason}, nil
	}
	if inject.IsWindows(&req.Pod.Spec) {
		return Adoption{Reason: policy.UnsupportedOS}, nil
	}
	edge, reason, message := engine.FindEdge(req)
	if reason != "" {
		if reason == policy.NoProfile {
			return Adoption{Reason: reason, Warnings: warnUnrecognised(req.Pod)}, nil
		}
		if !looksIntegrated(req.Pod) {
			return Adoption{Reason: reason}, nil
		}
		return Adoption{}, errors.New(message)
	}
	a := &adopter{pod: req.Pod, edge: edge.Container, options: options, choices: o}
	a.plan()
	switch err := errors.Join(a.errs...); {
	case err == nil && a.found == "":
		// Problems of a pod that is not integrated by hand do not concern Adopt.
		return Adoption{Profile: edge.Profile}, nil
	case verdict.Denied:
		return Adoption{}, errors.New(verdict.Message)
	case problem != nil:
		return Adoption{}, errors.New(problem.Message)
	case err != nil:
		return Adoption{}, err
	}
	return verify(engine, req, a)
}

// looksIntegrated reports whether a pod may be integrated by hand although no single edge
// was found in it.
func looksIntegrated(pod *corev1.Pod) bool {
	return findManualSidecar(pod, -1) != nil || strings.Contains(pod.Annotations[policy.IstioProxyConfigKey], "OUTPUT_CERTS") || len(warnUnrecognised(pod)) > 0
}

// warnUnrecognised warns about containers that must be edges, because they read
// certificates as only an edge does, but that no profile recognises. Examples are a
// mirrored image, and a patch file without an image.
func warnUnrecognised(pod *corev1.Pod) (warnings []string) {
	eachContainer(pod, func(_ string, _ int, c *corev1.Container) {
		if inject.FindEnv(c, inject.SecretDirEnv) != nil {
			warnings = append(warnings, fmt.Sprintf("container %s sets %s, but no profile recognises an edge in image %q; name one with annotation %s and adopt it again", c.Name, inject.SecretDirEnv, c.Image, policy.ProfileKey))
		}
	})
	return warnings
}

// verify builds the patch and injects the plain pod, so that the user learns now what
// Isthmus would refuse later.
func verify(engine *inject.Engine, req inject.Request, a *adopter) (Adoption, error) {
	out := Adoption{Reason: policy.Injected, Found: a.found, Warnings: a.warnings, Patch: a.patch()}
	adoptedPod, err := applyPatch(req.Pod, out.Patch)
	if err != nil {
		return Adoption{}, err
	}
	req.Pod = adoptedPod
	req.Namespace.Labels = withInjectionLabel(req.Namespace.Labels)
	result := engine.Inject(req)
	if result.Reason != policy.Injected {
		return Adoption{}, fmt.Errorf("the plain pod cannot be injected (%s): %s", result.Reason, explain(result))
	}
	injected, err := applyPatch(adoptedPod, result.Patch)
	if err != nil {
		return Adoption{}, err
	}
	out.Profile, out.Mode = result.Profile, result.Mode
	out.Differences = Compare(a.pod, injected)
	out.Warnings = append(out.Warnings, warnMeshDifferences(a.sidecar, findSidecar(injected))...)
	return out, nil
}

// withInjectionLabel adds the label that opts a namespace in, unless the label has another
// value.
func withInjectionLabel(labels map[string]string) map[string]string {
	out := map[string]string{policy.InjectionLabel: policy.InjectionEnabled}
	maps.Copy(out, labels)
	return out
}

func explain(r inject.Result) string {
	if r.Message != "" || len(r.Warnings) == 0 {
		return r.Message
	}
	return r.Warnings[0].Text
}

// applyPatch returns a copy of the pod with the patch applied.
func applyPatch(pod *corev1.Pod, patch []operations.Operation) (*corev1.Pod, error) {
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

// encode encodes types of Isthmus and of Kubernetes, which cannot fail.
func encode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
