package webhook

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// validateNamespace reviews the keys of a namespace. A problem that the namespace had
// before is a warning, so that its owner can fix one problem after the other.
func (v *Validator) validateNamespace(req *request[validatedObject]) decision {
	namespace := req.Object.value.asNamespace()
	review := v.Engine.ReviewNamespace(namespace)
	var knownProblems []string
	if req.Operation == admissionv1.Update {
		old := req.OldObject.value.asNamespace()
		if req.Object.value.isDeleted() || slices.Equal(relevantKeys(old), relevantKeys(namespace)) {
			return decision{unchanged: true}
		}
		knownProblems = v.Engine.ReviewNamespace(old).Problems
	}
	d := decision{warnings: review.Warnings}
	if review.Excluded {
		d.reason = policy.ExcludedNamespace
	}
	for _, problem := range review.Problems {
		if !d.denied && !slices.Contains(knownProblems, problem) {
			d.denied, d.message = true, problem
			continue
		}
		d.warnings = append(d.warnings, policy.Warning{Code: string(policy.InvalidOverride), Text: problem})
	}
	if len(review.Problems) > 0 {
		d.reason = policy.InvalidOverride
	}
	return d
}

// relevantKeys lists the labels and annotations that decisions depend on, sorted:
// those of Isthmus, and Istio's about injection.
func relevantKeys(n policy.Namespace) []string {
	var pairs []string
	for kind, values := range map[string]map[string]string{"label": n.Labels, "annotation": n.Annotations} {
		for key, value := range values {
			if strings.HasPrefix(key, policy.Domain) || key == policy.IstioRevisionLabel || key == policy.IstioInjectionLabel || key == policy.IstioDataplaneLabel {
				pairs = append(pairs, kind+" "+key+"="+value)
			}
		}
	}
	slices.Sort(pairs)
	return pairs
}
