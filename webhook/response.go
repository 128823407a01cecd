package webhook

import (
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// podResponse turns the engine's result into a response without a UID.
func podResponse(result inject.Result) *admissionv1.AdmissionResponse {
	if result.Denied {
		return deniedResponse(result.Reason, result.Message, result.Warnings, auditAnnotations(result))
	}
	r := allowedResponse(result.Warnings, auditAnnotations(result))
	if len(result.EncodedPatch) == 0 {
		return r
	}
	patchType := admissionv1.PatchTypeJSONPatch
	r.Patch, r.PatchType = result.EncodedPatch, &patchType
	return r
}

func allowedResponse(warnings []policy.Warning, auditAnnotations map[string]string) *admissionv1.AdmissionResponse {
	r := &admissionv1.AdmissionResponse{Allowed: true, AuditAnnotations: auditAnnotations}
	for _, w := range policy.BoundWarnings(warnings, 0) {
		r.Warnings = append(r.Warnings, policy.WarningPrefix+w.Text)
	}
	return r
}

func deniedResponse(reason policy.Reason, message string, warnings []policy.Warning, auditAnnotations map[string]string) *admissionv1.AdmissionResponse {
	r := allowedResponse(warnings, auditAnnotations)
	r.Allowed = false
	r.Result = &metav1.Status{
		Status:  metav1.StatusFailure,
		Message: string(reason) + ": " + clip(message),
		Reason:  metav1.StatusReasonForbidden,
		Code:    http.StatusForbidden,
	}
	return r
}

// auditAnnotations are written to the audit log. The second review of a reinvoked
// pod has none: the API server rejects a second value for a key.
func auditAnnotations(result inject.Result) map[string]string {
	if result.Reason == policy.AlreadyInjected {
		return nil
	}
	a := map[string]string{"reason": string(result.Reason)}
	if result.Profile != "" {
		a["profile"] = result.Profile
	}
	if result.Mode != "" {
		a["mode"] = string(result.Mode)
	}
	return a
}
