package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// scratch is memory that one review after the other uses: body and answer are
// most of the garbage that a review would make.
type scratch struct {
	body   bytes.Buffer
	answer []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func take() *scratch {
	s := scratches.Get().(*scratch)
	s.body.Reset()
	return s
}

// put keeps it for the next review, unless this one made it large.
func (s *scratch) put() {
	if s.body.Cap() <= maxScratch && cap(s.answer) <= maxScratch {
		scratches.Put(s)
	}
}

// respond turns a decision into a response, without the UID.
func respond(result inject.Result) *admissionv1.AdmissionResponse {
	if result.Denied {
		return refuse(result.Reason, result.Message, result.Warnings, audit(result))
	}
	r := admit(result.Warnings, audit(result))
	if len(result.EncodedPatch) == 0 {
		return r
	}
	kind := admissionv1.PatchTypeJSONPatch
	r.Patch, r.PatchType = result.EncodedPatch, &kind
	return r
}

// admit allows with warnings.
func admit(warnings []policy.Warning, annotations map[string]string) *admissionv1.AdmissionResponse {
	r := &admissionv1.AdmissionResponse{Allowed: true, AuditAnnotations: annotations}
	for _, w := range warnings {
		r.Warnings = append(r.Warnings, "isthmus: "+clip(w.Text))
	}
	return r
}

// refuse denies with a reason and a sentence.
func refuse(reason policy.Reason, message string, warnings []policy.Warning, annotations map[string]string) *admissionv1.AdmissionResponse {
	r := admit(warnings, annotations)
	r.Allowed = false
	r.Result = &metav1.Status{
		Status:  metav1.StatusFailure,
		Message: string(reason) + ": " + clip(message),
		Reason:  metav1.StatusReasonForbidden,
		Code:    http.StatusForbidden,
	}
	return r
}

// audit is what the audit log keeps of a decision. The second call of a
// reinvocation adds nothing: the API server rejects a second value.
func audit(result inject.Result) map[string]string {
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

// appendReview writes the review that carries the response. It is written field
// by field: the patch, by far the largest part, goes in as base64 without
// another copy, and the rest costs a tenth of what reflection would.
func appendReview(b []byte, apiVersion string, r *admissionv1.AdmissionResponse) ([]byte, error) {
	b = append(b, `{"kind":"AdmissionReview","apiVersion":`...)
	b = appendString(b, apiVersion)
	b = append(b, `,"response":{"uid":`...)
	b = appendString(b, string(r.UID))
	b = append(b, `,"allowed":`...)
	b = strconv.AppendBool(b, r.Allowed)
	if r.Result != nil {
		status, err := json.Marshal(r.Result)
		if err != nil {
			return nil, fmt.Errorf("encode status: %w", err)
		}
		b = append(append(b, `,"status":`...), status...)
	}
	for i, key := range slices.Sorted(maps.Keys(r.AuditAnnotations)) {
		b = open(b, i, `,"auditAnnotations":{`)
		b = append(appendString(b, key), ':')
		b = appendString(b, r.AuditAnnotations[key])
	}
	b = shut(b, len(r.AuditAnnotations), '}')
	for i, text := range r.Warnings {
		b = open(b, i, `,"warnings":[`)
		b = appendString(b, text)
	}
	b = shut(b, len(r.Warnings), ']')
	if r.PatchType != nil {
		b = append(b, `,"patchType":`...)
		b = appendString(b, string(*r.PatchType))
		b = append(b, `,"patch":"`...)
		b = base64.StdEncoding.AppendEncode(b, r.Patch)
		b = append(b, '"')
	}
	return append(b, `}}`...), nil
}

// open begins a list or map before its first item, and separates the others.
func open(b []byte, i int, begin string) []byte {
	if i == 0 {
		return append(b, begin...)
	}
	return append(b, ',')
}

func shut(b []byte, n int, end byte) []byte {
	if n == 0 {
		return b
	}
	return append(b, end)
}

// appendString writes a JSON string, most of which need no escapes.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			data, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string
			}
			return append(b, data...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
