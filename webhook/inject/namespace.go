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

// NamespaceReview is the result of checking a namespace's labels and annotations before
// a pod is created in it.
type NamespaceReview struct {
	// Excluded is true if no pod of the namespace is ever injected.
	Excluded bool
	// Problems are sentences about values that are not allowed.
	Problems []string
	// Warnings are for the user. They are not errors.
	Warnings []policy.Warning
}

// ReviewNamespace checks the labels and annotations of a namespace. Each problem would
// leave the namespace's pods without an identity, and its Secrets unmanaged by the
// controller.
func (e *Engine) ReviewNamespace(ns policy.Namespace) NamespaceReview {
	if slices.Contains(e.settings.ExcludedNamespaces, ns.Name) {
		return NamespaceReview{Excluded: true, Warnings: policy.BoundWarnings(warnExcluded(ns), 0)}
	}
	r := e.reviewOptions(ns)
	keyWarnings, omitted := policy.UnknownKeys(nil, nil, ns)
	r.Warnings = policy.BoundWarnings(append(r.Warnings, keyWarnings...), omitted)
	return r
}

func (e *Engine) reviewOptions(ns policy.Namespace) NamespaceReview {
	r := NamespaceReview{Problems: policy.NamespaceProblems(ns, e.settings.Defaults, e.settings.Names())}
	if name, ok := ns.Annotations[policy.ProfileKey]; ok && e.profiles.ByName(name) == nil {
		r.Problems = append(r.Problems, e.unknownProfileMessage(ns, name))
	}
	if len(r.Problems) > 0 {
		return r // the combination of the keys is unknown
	}
	o, _ := policy.Resolve(nil, nil, ns, e.settings.Defaults, e.settings.Names())
	e.reviewMirror(&r, ns, o)
	e.reviewMesh(&r, ns, o)
	if _, ok := ns.Annotations[policy.PublishKey]; ok && o.Publish && e.settings.PublisherImage == "" {
		r.addProblem(`namespace %s: annotation %s: "true" is not allowed; the settings name no publisherImage`, ns.Name, policy.PublishKey)
	}
	r.Warnings = append(r.Warnings, policy.IneffectiveKeys(nil, ns, o)...)
	if ns.Labels[policy.InjectionLabel] == policy.InjectionEnabled && o.Mode.HasCertificate() && !e.settings.KeepsSecretsIn(ns.Name) {
		r.Warnings = append(r.Warnings, policy.Warning{Code: "files-only", Text: e.settings.leftOut(ns.Name) + ", so no Secret is kept there: its edges get certificate files only"})
	}
	reviewLifetime(&r, ns, o)
	return r
}

// reviewLifetime warns of a lifetime that cert-manager does not issue.
func reviewLifetime(r *NamespaceReview, ns policy.Namespace, o policy.Options) {
	if o.Source != policy.CertManager || o.CertTTL == 0 || o.CertTTL >= policy.MinCertManagerTTL {
		return
	}
	r.Warnings = append(r.Warnings, policy.Warning{Code: "no-effect", Text: fmt.Sprintf(
		"namespace %s: %s %s is less than source cert-manager issues: the certificates in the Secret live %s; ask for that, or choose another source",
		ns.Name, policy.CertTTLKey, o.CertTTL, policy.MinCertManagerTTL)})
}

func (r *NamespaceReview) addProblem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (e *Engine) unknownProfileMessage(ns policy.Namespace, name string) string {
	return fmt.Sprintf("namespace %s: annotation %s: %s is not a profile; known are %s", ns.Name, policy.ProfileKey, policy.Quote(policy.ProfileKey, name), strings.Join(e.profiles.Names(), ", "))
}

// warnExcluded warns if an excluded namespace has keys of Isthmus, which have no effect.
func warnExcluded(ns policy.Namespace) []policy.Warning {
	keys := policy.NamespaceKeys(ns.Labels, ns.Annotations)
	if len(keys) == 0 {
		return nil
	}
	return []policy.Warning{{Code: "no-effect", Text: fmt.Sprintf("namespace %s is excluded from injection, so its keys have no effect (%s); remove them",
		ns.Name, strings.Join(keys, ", "))}}
}

// reviewMirror checks that the controller may read the Secret to be mirrored. A namespace
// without a name for it mirrors one Secret for each service account; their names are not
// checked here.
func (e *Engine) reviewMirror(r *NamespaceReview, ns policy.Namespace, o policy.Options) {
	if o.Source != policy.Mirror {
		return
	}
	allowed := e.settings.MirrorSecretNames
	switch name := o.MirrorSecret; {
	case len(allowed) == 0:
		r.addProblem("namespace %s: annotation %s: %q is not allowed; the chart allows no Secret to be mirrored, see its value controller.mirrorSecretNames", ns.Name, policy.SourceKey, o.Source)
	case name != "" && !slices.Contains(allowed, name):
		r.addProblem("namespace %s: annotation %s: %q is not allowed; want one of the names that the chart allows: %s", ns.Name, policy.MirrorSecretKey, name, strings.Join(allowed, ", "))
	}
}

// reviewMesh checks that the mesh has the revision that the namespace names, and grants
// the certificate lifetime. A value that the namespace does not set itself is not
// reported.
func (e *Engine) reviewMesh(r *NamespaceReview, ns policy.Namespace, o policy.Options) {
	mesh, err := e.meshFor(ns, o)
	switch revision, chosen := ns.Labels[policy.IstioRevisionLabel]; {
	case err != nil && chosen && revision != "":
		r.addProblem("namespace %s: label %s: %q cannot be used; %v", ns.Name, policy.IstioRevisionLabel, revision, err)
		return
	case err != nil:
		if ns.Labels[policy.InjectionLabel] == policy.InjectionEnabled && (o.Mode == policy.Sidecar || o.Mode == policy.Istio) {
			r.Warnings = append(r.Warnings, policy.Warning{Code: string(policy.InvalidOverride), Text: fmt.Sprintf("edges in namespace %s are left without an identity for now: %v", ns.Name, err)})
		}
		return
	}
	if _, ok := ns.Annotations[policy.CertTTLKey]; ok {
		if message := ttlProblem(o.CertTTL, time.Duration(mesh.MaxCertTTL)); message != "" {
			r.addProblem("namespace %s: annotation %s", ns.Name, message)
		}
	}
}

// meshFor returns the mesh settings for a pod without labels and annotations. It is an
// error if there are none. In mode istio it is also an error if no injector serves the
// revision.
func (e *Engine) meshFor(ns policy.Namespace, o policy.Options) (patches.Mesh, error) {
	if o.Mode == policy.Istio {
		if _, notCalled := policy.InjectorRevision(nil, ns); notCalled != "" {
			return patches.Mesh{}, errors.New(notCalled)
		}
		if _, err := e.injector(o.Revision); err != nil {
			return patches.Mesh{}, err
		}
	}
	return e.mesh(o.Revision)
}
