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

// workload reviews the pod template of what makes pods, as its pods will be
// reviewed.
func (v *Validator) workload(ctx context.Context, req *admissionv1.AdmissionRequest) (opinion, error) {
	now, err := decodeWorkload(req.Object.Raw)
	if err != nil {
		return opinion{}, err
	}
	restarts := false
	if req.Operation == admissionv1.Update {
		old, err := decodeWorkload(req.OldObject.Raw)
		if err != nil {
			return opinion{}, err
		}
		before, after := old.template(), now.template()
		if now.Metadata.DeletionTimestamp != nil || equality.Semantic.DeepEqual(before, after) {
			return opinion{unasked: true}, nil
		}
		restarts = equality.Semantic.DeepEqual(withoutRestart(before), withoutRestart(after))
	}
	template := now.template()
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	// A template that says nothing was sent for its namespace's label.
	ns, err := v.Namespaces.Namespace(ctx, req.Namespace, !says(pod))
	if err != nil {
		return opinion{}, fmt.Errorf("read namespace %s: %w", req.Namespace, err)
	}
	result := v.Engine.Inject(inject.Request{Pod: pod, Namespace: ns})
	o := opinion{
		denied: result.Denied, reason: result.Reason, warnings: result.Warnings,
		profile: result.Profile, mode: string(result.Mode),
	}
	if !o.denied {
		return o, nil
	}
	o.message = fmt.Sprintf("pod template of %s: %s", title(req, now), result.Message)
	if restarts {
		// What it is a restart of was there before, and goes on until its pods are
		// refused.
		o.denied = false
		o.warnings = append(o.warnings, policy.Warning{Code: string(o.reason), Text: "new pods will be refused: " + string(o.reason) + ": " + o.message})
	}
	return o, nil
}

// object is all that is read of a workload, whatever its kind: a CronJob's
// template lies deeper than that of the others.
type object struct {
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

func decodeWorkload(raw []byte) (*object, error) {
	o := &object{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, o); err != nil {
		return nil, fmt.Errorf("decode workload: %w", err)
	}
	return o, nil
}

func (o *object) template() *corev1.PodTemplateSpec {
	if o.Spec.JobTemplate != nil {
		return &o.Spec.JobTemplate.Spec.Template
	}
	return &o.Spec.Template
}

// title names a workload in a sentence.
func title(req *admissionv1.AdmissionRequest, o *object) string {
	name := o.Metadata.Name
	if name == "" {
		name = o.Metadata.GenerateName
	}
	return req.Kind.Kind + " " + name
}

// says reports whether a pod carries the key that opts it in or out.
func says(pod *corev1.Pod) bool {
	_, label := pod.Labels[policy.InjectKey]
	_, annotation := pod.Annotations[policy.InjectKey]
	return label || annotation
}

// restartedAt is the annotation that kubectl rollout restart sets in a template
// (defaultObjectRestarter of kubectl).
const restartedAt = "kubectl.kubernetes.io/restartedAt"

func withoutRestart(template *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	other := *template
	other.Annotations = maps.Clone(template.Annotations)
	delete(other.Annotations, restartedAt)
	return &other
}
