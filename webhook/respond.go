package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// scratch is memory that one review after the other uses: body, patch and
// answer are most of the garbage that a review would make.
type scratch struct {
	body          bytes.Buffer
	patch, answer []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// respond turns a decision into a response, without the UID. The patch is in
// the scratch.
func respond(result inject.Result, s *scratch) (*admissionv1.AdmissionResponse, error) {
	r := &admissionv1.AdmissionResponse{Allowed: !result.Denied, AuditAnnotations: audit(result)}
	for _, w := range result.Warnings {
		r.Warnings = append(r.Warnings, "isthmus: "+w.Text)
	}
	if result.Denied {
		r.Result = &metav1.Status{
			Status:  metav1.StatusFailure,
			Message: string(result.Reason) + ": " + result.Message,
			Reason:  metav1.StatusReasonForbidden,
			Code:    http.StatusForbidden,
		}
		return r, nil
	}
	if len(result.Patch) == 0 {
		return r, nil
	}
	var err error
	if s.patch, err = appendPatch(s.patch[:0], result.Patch); err != nil {
		return nil, err
	}
	kind := admissionv1.PatchTypeJSONPatch
	r.Patch, r.PatchType = s.patch, &kind
	return r, nil
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

// appendPatch writes the operations as a JSON Patch. Values that are encoded
// already are copied as they are, which json.Marshal would scan again.
func appendPatch(b []byte, ops []jsonpatch.Operation) (_ []byte, err error) {
	for i, op := range ops {
		if i == 0 {
			b = append(b, '[')
		} else {
			b = append(b, ',')
		}
		b = append(b, `{"op":"`...)
		b = append(b, op.Operation...)
		b = append(b, `","path":`...)
		if b, err = appendValue(b, op.Path); err != nil {
			return nil, fmt.Errorf("encode patch path %s: %w", op.Path, err)
		}
		b = append(b, `,"value":`...)
		if b, err = appendValue(b, op.Value); err != nil {
			return nil, fmt.Errorf("encode patch value at %s: %w", op.Path, err)
		}
		b = append(b, '}')
	}
	return append(b, ']'), nil
}

func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case json.RawMessage:
		return append(b, v...), nil
	case []any:
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendValue(b, item); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	default:
		data, err := json.Marshal(v)
		return append(b, data...), err
	}
}

// appendReview writes the review that carries the response. The patch is by
// far its largest part, and is written as base64 without another copy.
func appendReview(b []byte, apiVersion string, r *admissionv1.AdmissionResponse) []byte {
	patch := r.Patch
	r.Patch = nil
	data, err := json.Marshal(r)
	if err != nil {
		panic(err) // Kubernetes' own types; the handler answers with HTTP 500
	}
	r.Patch = patch
	b = append(b, `{"kind":"AdmissionReview","apiVersion":`...)
	version, err := json.Marshal(apiVersion)
	if err != nil {
		panic(err)
	}
	b = append(b, version...)
	b = append(b, `,"response":`...)
	if len(patch) > 0 {
		b = append(b, data[:len(data)-1]...)
		b = append(b, `,"patch":"`...)
		b = base64.StdEncoding.AppendEncode(b, patch)
		b = append(b, `"}`...)
	} else {
		b = append(b, data...)
	}
	return append(b, '}')
}
