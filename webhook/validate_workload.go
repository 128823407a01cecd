package webhook

import (
	"bytes"
	"context"
	"fmt"
	"reflect"

	"github.com/go-json-experiment/json"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// validateWorkload reviews the pod template of a workload as its pods will be
// reviewed.
func (v *Validator) validateWorkload(ctx context.Context, req *request[validatedObject]) (decision, error) {
	workload := &req.Object.value
	template, isUpdate := workload.template(), req.Operation == admissionv1.Update
	oldTemplate := req.OldObject.value.template()
	if isUpdate && (workload.isDeleted() || bytes.Equal(oldTemplate.text, template.text)) {
		return decision{unchanged: true}, nil
	}
	pod := template.fields.toPod()
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
	d.message = fmt.Sprintf("pod template of %s %s: %s", req.Kind.Kind, workload.Metadata.nameOrPrefix(), result.Message)
	if isUpdate && isRestart(oldTemplate, template) {
		// The restarted template was invalid before, and its running pods stay until
		// new ones are refused.
		d.denied = false
		d.warnings = append(d.warnings, policy.Warning{Code: string(d.reason), Text: "new pods will be refused: " + string(d.reason) + ": " + d.message})
	}
	return d, nil
}

// hasInjectKey reports whether a pod carries the key that opts it in or out.
func hasInjectKey(pod *corev1.Pod) bool {
	_, asLabel := pod.Labels[policy.InjectKey]
	_, asAnnotation := pod.Annotations[policy.InjectKey]
	return asLabel || asAnnotation
}

// isRestart reports whether the templates are the same apart from the annotation with
// which kubectl rollout restart changes a template.
func isRestart(old, template *podTemplate) bool {
	before, err := old.withoutRestartedAt()
	if err != nil {
		return false
	}
	after, err := template.withoutRestartedAt()
	return err == nil && reflect.DeepEqual(before, after)
}

// withoutRestartedAt returns all values of the template except for the annotation.
func (t *podTemplate) withoutRestartedAt() (map[string]any, error) {
	var values map[string]any
	if err := json.Unmarshal(t.text, &values, decoding); err != nil {
		return nil, err
	}
	metadata, _ := values["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	delete(annotations, policy.RestartedAtKey)
	if len(annotations) == 0 {
		delete(metadata, "annotations")
	}
	return values, nil
}
