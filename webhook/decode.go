package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// admissionReview is what the webhooks read of an AdmissionReview, with its objects
// decoded into T in the same pass. Whatever T does not name is skipped.
type admissionReview[T any] struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Request    *request[T] `json:"request"`
}

// request is what the webhooks read of an AdmissionRequest.
type request[T any] struct {
	UID         types.UID                   `json:"uid"`
	Kind        metav1.GroupVersionKind     `json:"kind"`
	Resource    metav1.GroupVersionResource `json:"resource"`
	SubResource string                      `json:"subResource"`
	Name        string                      `json:"name"`
	Namespace   string                      `json:"namespace"`
	Operation   admissionv1.Operation       `json:"operation"`
	Object      object[T]                   `json:"object"`
	OldObject   object[T]                   `json:"oldObject"`
}

// object is an object of a review.
type object[T any] struct {
	// present is false if the review has no such object, or null.
	present bool
	value   T
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom. Of two objects under one name the
// second replaces the first, as in a runtime.RawExtension, and null is ignored.
func (o *object[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == jsontext.KindNull {
		return dec.SkipValue()
	}
	*o = object[T]{present: true}
	return json.UnmarshalDecode(dec, &o.value)
}

// decoding makes the decoder accept what the API machinery's decoder accepts
// (sigs.k8s.io/json): names are case-sensitive, the last of two equal names counts, and
// invalid UTF-8 is replaced. FuzzDecode compares the two.
var decoding = json.JoinOptions(
	jsontext.AllowDuplicateNames(true),
	jsontext.AllowInvalidUTF8(true),
	jsonv1.MergeWithLegacySemantics(true),
)

// objectError is the error of an object that is JSON but does not have the types of its
// kind.
type objectError struct{ error }

// decodeReview decodes a review in one pass. If only an object of it is wrong, the error
// is an objectError, and the review holds what precedes the object.
func decodeReview[T any](body []byte) (*admissionReview[T], error) {
	review := &admissionReview[T]{}
	err := json.Unmarshal(body, review, decoding)
	syntactic, semantic := (*jsontext.SyntacticError)(nil), (*json.SemanticError)(nil)
	switch {
	case err == nil:
		return review, nil
	case errors.As(err, &syntactic) || !errors.As(err, &semantic):
		return nil, fmt.Errorf("decode AdmissionReview: %w", err)
	}
	where := cmp.Or(string(semantic.JSONPointer), "/")
	if semantic.Err != nil {
		err = fmt.Errorf("decode AdmissionReview: %s: %w", where, semantic.Err)
	} else {
		// The decoder's own text names types of Go, which a user does not know.
		err = fmt.Errorf("decode AdmissionReview: %s: unexpected %s", where, semantic.JSONKind)
	}
	if strings.HasPrefix(where, "/request/object") || strings.HasPrefix(where, "/request/oldObject") {
		return review, objectError{err}
	}
	return nil, err
}
