package webhook

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	admissionv1 "k8s.io/api/admission/v1"
)

// appendReview appends the JSON of a review with the response. It encodes field by
// field: the patch, by far the largest part, is encoded as base64 without another
// copy, and the rest takes a tenth of the time that reflection would.
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
		b = appendItemStart(b, i, `,"auditAnnotations":{`)
		b = append(appendString(b, key), ':')
		b = appendString(b, r.AuditAnnotations[key])
	}
	b = appendEnd(b, len(r.AuditAnnotations), '}')
	for i, text := range r.Warnings {
		b = appendItemStart(b, i, `,"warnings":[`)
		b = appendString(b, text)
	}
	b = appendEnd(b, len(r.Warnings), ']')
	if r.PatchType != nil {
		b = append(b, `,"patchType":`...)
		b = appendString(b, string(*r.PatchType))
		b = append(b, `,"patch":"`...)
		b = base64.StdEncoding.AppendEncode(b, r.Patch)
		b = append(b, '"')
	}
	return append(b, `}}`...), nil
}

// appendItemStart appends the start of a list or map before its first item, and a
// comma before every other item.
func appendItemStart(b []byte, index int, start string) []byte {
	if index == 0 {
		return append(b, start...)
	}
	return append(b, ',')
}

// appendEnd appends the end of a list or map that has items.
func appendEnd(b []byte, items int, end byte) []byte {
	if items == 0 {
		return b
	}
	return append(b, end)
}

// appendString appends a JSON string. Most strings need no escapes.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			data, err := json.Marshal(s)
			if err != nil {
				panic(err) // marshalling a string does not fail
			}
			return append(b, data...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
