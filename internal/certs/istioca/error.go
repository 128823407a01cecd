package istioca

import (
	"errors"
	"fmt"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// Reason says in one word why there is no certificate. The set is closed, so
// that it can label a metric.
type Reason string

// The reasons.
const (
	// TokenForbidden: the API server refuses to make a token.
	TokenForbidden Reason = "token-forbidden"
	// AccountMissing: the service account does not exist.
	AccountMissing Reason = "account-missing"
	// TokenFailed: the API server cannot be reached, or fails.
	TokenFailed Reason = "token-failed"
	// NoRoots: the mesh's roots are not known, so the authority cannot be
	// verified.
	NoRoots Reason = "no-roots"
	// Unavailable: the authority cannot be reached, or does not answer in time.
	Unavailable Reason = "unavailable"
	// Untrusted: what answers at the authority's address has no certificate of
	// the mesh, or not for its name.
	Untrusted Reason = "untrusted"
	// Unauthenticated: the authority does not accept the token.
	Unauthenticated Reason = "unauthenticated"
	// Refused: the authority refuses for another reason, or fails.
	Refused Reason = "refused"
	// Rejected: the authority's answer is no bundle; certs.ReasonOf says why.
	Rejected Reason = "rejected"
	// Canceled: the caller gave up.
	Canceled Reason = "canceled"
	// Internal: no key could be made.
	Internal Reason = "internal"
)

// Reasons lists every Reason.
func Reasons() []Reason {
	return []Reason{
		TokenForbidden, AccountMissing, TokenFailed, NoRoots, Unavailable, Untrusted, Unauthenticated, Refused,
		Rejected, Canceled, Internal,
	}
}

// Error says which step failed, for whom, and what can be done. It holds
// neither token nor key.
type Error struct {
	Reason Reason
	// Account is namespace/name of the service account.
	Account string
	// Address is the authority's.
	Address string
	// Hint is a phrase that says what to look at; it may be empty.
	Hint string
	// Err is what went wrong.
	Err error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("certificate for service account %s from %s: %s: %v", e.Account, e.Address, e.Reason, e.Err)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of an *Error in err's tree, and the empty string
// where there is none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// problem makes an *Error of what happened to a request.
func problem(r certs.Request, reason Reason, err error) error {
	return &Error{
		Reason:  reason,
		Account: r.Namespace + "/" + r.ServiceAccount,
		Address: r.CAAddress,
		Hint:    hint(r, reason),
		Err:     err,
	}
}

// hint says what to look at.
func hint(r certs.Request, reason Reason) string {
	switch reason {
	case TokenForbidden:
		return fmt.Sprintf("tokens are made only in namespaces labelled isthmus.dev/injection=enabled, for the audience istio-ca, "+
			"as the chart's ValidatingAdmissionPolicy says; this one is for %q", r.TokenAudience)
	case AccountMissing:
		return "create it, or name another with isthmus.dev/service-account"
	case NoRoots:
		return "istiod publishes them in the ConfigMap istio-ca-root-cert"
	case Unavailable:
		return "is that the address of istiod, and is it running?"
	case Untrusted:
		return "is that the address of istiod, and are the mesh's roots its own?"
	case Unauthenticated:
		id := "none"
		if r.ClusterID != "" {
			id = fmt.Sprintf("%q", r.ClusterID)
		}
		return fmt.Sprintf("istiod's TOKEN_AUDIENCES has to have the audience %q, and its CLUSTER_ID be the cluster id %s",
			r.TokenAudience, id)
	default:
		return ""
	}
}
