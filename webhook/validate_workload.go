package webhook

import (
	"context"
	"fmt"
	"maps"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// validateWorkload reviews the pod template of a workload as its pods will be
// reviewed.
func (v *Validator) validateWorkload(ctx context.Context, req *admissionv1.AdmissionRequest) (decision, error) {
	workload, err := decodeWorkload(req.Object.Raw)
	if err != nil {
		return decision{}, err
	}
	template, isRestart := workload.template(), false
	if req.Operation == admissionv1.Update {
		old, err := decodeWorkload(req.OldObject.Raw)
		if err != nil {
			return decision{}, err
		}
		oldTemplate := old.template()
		if workload.Metadata.DeletionTimestamp != nil || equality.Semantic.DeepEqual(oldTemplate, template) {
			return decision{unchanged: true}, nil
		}
		isRestart = equality.Semantic.DeepEqual(withoutRestartedAt(oldTemplate), withoutRestartedAt(template))
	}
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	// A template without the key is only sent because of its namespace's label.
	ns, err := v.Namespaces.Namespace(ctx, req.Namespace, !hasInjectKey(pod))
	if err != nil {
		return decision{}, fmt.Errorf("read namespace %s: %w", req.Namespace, err)
	}
	result := v.Engine.Inject(inject.Request{Pod: pod, Namespace: ns})
	d := decision{
		denied: result.Denied, reason: result.Reason, warnings: result.Warnings,
		profile: result.Profile, mode: string(result.Mode),
	}
	if !d.denied {
		return d, nil
	}
	d.message = fmt.Sprintf("pod template of %s %s: %s", req.Kind.Kind, workload.name(), result.Message)
	if isRestart {
		// The restarted template was invalid before, and its running pods stay until
		// new ones are refused.
		d.denied = false
		d.warnings = append(d.warnings, policy.Warning{Code: string(d.reason), Text: "new pods will be refused: " + string(d.reason) + ": " + d.message})
	}
	return d, nil
}

// podWorkload is the part of a workload of any kind that its review reads. The
// template of a CronJob is nested deeper than that of other kinds.
type podWorkload struct {
	Metadata struct {
		Name              string       `json:"name"`
		GenerateName      string       `json:"generateName"`
		DeletionTimestamp *metav1.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		Template    corev1.PodTemplateSpec `json:"template"`
		JobTemplate *struct {
			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

func decodeWorkload(raw []byte) (*podWorkload, error) {
	workload := &podWorkload{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, workload); err != nil {
		return nil, fmt.Errorf("decode workload: %w", err)
	}
	return workload, nil
}

func (w *podWorkload) template() *corev1.PodTemplateSpec {
	if w.Spec.JobTemplate != nil {
		return &w.Spec.JobTemplate.Spec.Template
	}
	return &w.Spec.Template
}

// name is the name of the workload, or its generateName before it has a name.
func (w *podWorkload) name() string {
	if w.Metadata.Name == "" {
		return w.Metadata.GenerateName
	}
	return w.Metadata.Name
}

// hasInjectKey reports whether a pod carries the key that opts it in or out.
func hasInjectKey(pod *corev1.Pod) bool {
	_, asLabel := pod.Labels[policy.InjectKey]
	_, asAnnotation := pod.Annotations[policy.InjectKey]
	return asLabel || asAnnotation
}

func withoutRestartedAt(template *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	other := *template
	other.Annotations = maps.Clone(template.Annotations)
	delete(other.Annotations, policy.RestartedAtKey)
	return &other
}
