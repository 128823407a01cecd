package certs

import (
	"errors"
	"fmt"
	"strings"
)

// Reason says in one word why material was rejected. The set is closed; it is a
// label of the metric isthmus_bundle_rejected_total.
type Reason string

// The reasons.
const (
	// Malformed: no key or certificate, or PEM that does not parse.
	Malformed Reason = "malformed"
	// KeyMismatch: the key belongs to another certificate. During every rotation of
	// Istio's agent this is so for a short time.
	KeyMismatch Reason = "key-mismatch"
	// WrongIdentity: the leaf does not carry exactly the SPIFFE ID expected.
	WrongIdentity Reason = "wrong-identity"
	// WrongUsage: the leaf is not for clients and servers that sign, or is a CA.
	WrongUsage Reason = "wrong-usage"
	// NotYetValid: the leaf's validity begins in the future.
	NotYetValid Reason = "not-yet-valid"
	// Expired: the leaf's validity ended, or is about to.
	Expired Reason = "expired"
	// Untrusted: the chain leads to no root, or only to an expired one.
	Untrusted Reason = "untrusted"
)

// Reasons lists every Reason.
func Reasons() []Reason {
	return []Reason{Malformed, KeyMismatch, WrongIdentity, WrongUsage, NotYetValid, Expired, Untrusted}
}

// Rejection is the error of New.
type Rejection struct {
	// Reason is the kind of the rejection.
	Reason Reason
	// Detail is a phrase with the value that was found and the one wanted. It is at
	// most 512 bytes long, since a certificate may hold names of any length, and it
	// never contains key material.
	Detail string
}

// Error returns the reason and the detail.
func (r *Rejection) Error() string { return string(r.Reason) + ": " + r.Detail }

// ReasonOf returns the reason of the *Rejection in err's tree. It is empty when
// there is none.
func ReasonOf(err error) Reason {
	var r *Rejection
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

func reject(reason Reason, format string, args ...any) error {
	const maxLength = 512
	detail := fmt.Sprintf(format, args...)
	if len(detail) > maxLength {
		detail = strings.ToValidUTF8(detail[:maxLength-len("...")], "") + "..."
	}
	return &Rejection{Reason: reason, Detail: detail}
}
