package webhook

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// validateNamespace reviews the keys of a namespace. A problem that the namespace had
// before is a warning, so that its owner can fix one problem after the other.
func (v *Validator) validateNamespace(req *admissionv1.AdmissionRequest) (decision, error) {
	namespace, err := decodeNamespace(req.Object.Raw)
	if err != nil {
		return decision{}, err
	}
	review := v.Engine.ReviewNamespace(namespace.toPolicy())
	var knownProblems []string
	if req.Operation == admissionv1.Update {
		old, err := decodeNamespace(req.OldObject.Raw)
		if err != nil {
			return decision{}, err
		}
		if namespace.DeletionTimestamp != nil || slices.Equal(old.relevantKeys(), namespace.relevantKeys()) {
			return decision{unchanged: true}, nil
		}
		knownProblems = v.Engine.ReviewNamespace(old.toPolicy()).Problems
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
	return d, nil
}

// namespaceMetadata is the part of a namespace that its review reads.
type namespaceMetadata struct {
	Name              string            `json:"name"`
	Labels            map[string]string `json:"labels"`
	Annotations       map[string]string `json:"annotations"`
	DeletionTimestamp *metav1.Time      `json:"deletionTimestamp"`
}

func decodeNamespace(raw []byte) (namespaceMetadata, error) {
	var namespace struct {
		Metadata namespaceMetadata `json:"metadata"`
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &namespace); err != nil {
		return namespaceMetadata{}, fmt.Errorf("decode namespace: %w", err)
	}
	return namespace.Metadata, nil
}

func (n namespaceMetadata) toPolicy() policy.Namespace {
	return policy.Namespace{Name: n.Name, Labels: n.Labels, Annotations: n.Annotations}
}

// relevantKeys lists the labels and annotations that decisions depend on, sorted:
// those of Isthmus, and Istio's about injection.
func (n namespaceMetadata) relevantKeys() []string {
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
