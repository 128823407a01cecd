package inject

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// NamespaceReview is what there is to say of a namespace's own keys, before any
// pod is created in it.
type NamespaceReview struct {
	// Excluded is true when no pod of the namespace is ever injected.
	Excluded bool
	// Problems are values that are not allowed: a sentence each.
	Problems []string
	// Warnings are what the user should know but is no error.
	Warnings []policy.Warning
}

// ReviewNamespace says what is wrong with a namespace's own keys. Its pods would
// be left without an identity for each of the problems, and the controller would
// keep no Secret there.
func (e *Engine) ReviewNamespace(ns policy.Namespace) NamespaceReview {
	if slices.Contains(e.settings.ExcludedNamespaces, ns.Name) {
		return NamespaceReview{Excluded: true, Warnings: excluded(ns)}
	}
	r := NamespaceReview{
		Warnings: policy.UnknownKeys(nil, nil, ns),
		Problems: policy.NamespaceProblems(ns, e.settings.Defaults, e.settings.SecretNames),
	}
	if name, ok := ns.Annotations[policy.ProfileKey]; ok && e.profiles.ByName(name) == nil {
		r.Problems = append(r.Problems, e.noProfile(ns, name))
	}
	if len(r.Problems) > 0 {
		return r // what the keys say together is not known
	}
	o, _ := policy.Resolve(nil, nil, ns, e.settings.Defaults, e.settings.SecretNames)
	e.reviewMirror(&r, ns, o)
	e.reviewMesh(&r, ns, o)
	if _, ok := ns.Annotations[policy.PublishKey]; ok && o.Publish && e.settings.PublisherImage == "" {
		r.problem(`annotation of namespace %s %s: "true" is not allowed; the settings name no publisherImage`, ns.Name, policy.PublishKey)
	}
	r.Warnings = append(r.Warnings, policy.Ineffective(nil, ns, o)...)
	return r
}

func (r *NamespaceReview) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// noProfile says that what a namespace names is no profile.
func (e *Engine) noProfile(ns policy.Namespace, name string) string {
	return fmt.Sprintf("annotation of namespace %s %s: %q is not a profile; known are %s", ns.Name, policy.ProfileKey, name, strings.Join(e.profiles.Names(), ", "))
}

// excluded warns that nothing of ours has an effect there.
func excluded(ns policy.Namespace) []policy.Warning {
	keys := policy.NamespaceKeys(ns.Labels, ns.Annotations)
	if len(keys) == 0 {
		return nil
	}
	return []policy.Warning{{Code: "no-effect", Text: fmt.Sprintf("namespace %s is excluded from injection, so nothing that it says has an effect (%s); remove it",
		ns.Name, strings.Join(keys, ", "))}}
}

// reviewMirror holds the Secret that is to be mirrored against those that the
// controller may read. Without a name it is one for each service account, of which
// one is known here at most.
func (e *Engine) reviewMirror(r *NamespaceReview, ns policy.Namespace, o policy.Options) {
	if o.Source != policy.Mirror {
		return
	}
	allowed := e.settings.MirrorSecretNames
	switch name := o.MirrorSecret; {
	case len(allowed) == 0:
		r.problem("annotation of namespace %s %s: %q is not allowed; the chart allows no Secret to be mirrored, see its value controller.mirrorSecretNames", ns.Name, policy.SourceKey, o.Source)
	case name != "" && !slices.Contains(allowed, name):
		r.problem("annotation of namespace %s %s: %q is not allowed; want one of the names that the chart allows: %s", ns.Name, policy.MirrorSecretKey, name, strings.Join(allowed, ", "))
	}
}

// reviewMesh asks whether the mesh has and grants what the namespace wants. Only
// what the namespace itself says can be wrong with it.
func (e *Engine) reviewMesh(r *NamespaceReview, ns policy.Namespace, o policy.Options) {
	mesh, err := e.meshOf(ns, o)
	switch revision, chosen := ns.Labels[policy.IstioRevisionLabel]; {
	case err != nil && chosen && revision != "":
		r.problem("label of namespace %s %s: %q cannot be followed; %v", ns.Name, policy.IstioRevisionLabel, revision, err)
		return
	case err != nil:
		if ns.Labels[policy.InjectionLabel] == policy.InjectionEnabled && (o.Mode == policy.Sidecar || o.Mode == policy.Istio) {
			r.Warnings = append(r.Warnings, policy.Warning{Code: string(policy.InvalidOverride), Text: fmt.Sprintf("edges in namespace %s are left without an identity for now: %v", ns.Name, err)})
		}
		return
	}
	if _, ok := ns.Annotations[policy.CertTTLKey]; ok {
		if message := tooLong(o.CertTTL, time.Duration(mesh.MaxCertTTL)); message != "" {
			r.problem("annotation of namespace %s %s", ns.Name, message)
		}
	}
}

// meshOf returns the settings that a pod without a say would get, or why there
// are none. In mode istio a revision also needs an injector.
func (e *Engine) meshOf(ns policy.Namespace, o policy.Options) (patches.Mesh, error) {
	if o.Mode == policy.Istio {
		if _, never := policy.InjectorRevision(nil, ns); never != "" {
			return patches.Mesh{}, errors.New(never)
		}
		if _, err := e.injector(o.Revision); err != nil {
			return patches.Mesh{}, err
		}
	}
	return e.mesh(o.Revision)
}
