package istioca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// Reason says in one word why there is no certificate. The set is closed, so it can
// label a metric.
type Reason string

// The reasons.
const (
	// TokenForbidden: the API server refuses to create a token.
	TokenForbidden Reason = "token-forbidden"
	// AccountMissing: the service account does not exist.
	AccountMissing Reason = "account-missing"
	// TokenFailed: the API server cannot be reached or fails.
	TokenFailed Reason = "token-failed"
	// NoRoots: the mesh's roots are unknown, so the authority cannot be verified.
	NoRoots Reason = "no-roots"
	// Unavailable: the authority cannot be reached or does not answer in time.
	Unavailable Reason = "unavailable"
	// Busy: the authority answers other requests first.
	Busy Reason = "busy"
	// Untrusted: the server at the authority's address has no certificate of the
	// mesh, or one for another name.
	Untrusted Reason = "untrusted"
	// Unauthenticated: the authority does not accept the token.
	Unauthenticated Reason = "unauthenticated"
	// Refused: the authority refuses for another reason or fails.
	Refused Reason = "refused"
	// Rejected: the authority's certificate is invalid; certs.ReasonOf says why.
	Rejected Reason = "rejected"
	// Canceled: the caller canceled the request.
	Canceled Reason = "canceled"
	// UnknownKey: the mesh settings ask for a key that Istio does not have.
	UnknownKey Reason = "unknown-key"
	// Internal: no key could be created.
	Internal Reason = "internal"
)

// Reasons lists every Reason.
func Reasons() []Reason {
	return []Reason{
		TokenForbidden, AccountMissing, TokenFailed, NoRoots, Unavailable, Busy, Untrusted, Unauthenticated, Refused,
		Rejected, Canceled, UnknownKey, Internal,
	}
}

// Error says which step failed, for which service account, and what to do. It never
// contains a token or a key.
type Error struct {
	// Reason is the kind of the failure.
	Reason Reason
	// Account is namespace/name of the service account.
	Account string
	// Address is that of the authority.
	Address string
	// Hint is a phrase that says what to check. May be empty.
	Hint string
	// Err is the cause.
	Err error
}

// Error returns the account, the authority's address, the cause and the hint.
func (e *Error) Error() string {
	text := fmt.Sprintf("certificate for service account %s from %s: %s: %v", e.Account, e.Address, e.Reason, e.Err)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of the *Error in err's tree. It is empty when there is
// none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// newError returns an *Error for a request.
func newError(r certs.Request, reason Reason, err error) error {
	return &Error{
		Reason:  reason,
		Account: r.Namespace + "/" + r.ServiceAccount,
		Address: r.CAAddress,
		Hint:    hint(r, reason, err),
		Err:     err,
	}
}

// hint says what to check.
func hint(r certs.Request, reason Reason, err error) string {
	switch reason {
	case TokenForbidden:
		return fmt.Sprintf("the chart's ValidatingAdmissionPolicy allows tokens only in namespaces labelled isthmus.dev/injection=enabled, "+
			"for the audience istio-ca; this one is for %q", r.TokenAudience)
	case AccountMissing:
		return "create it, or choose another with isthmus.dev/service-account"
	case NoRoots:
		return "istiod publishes them in ConfigMap istio-ca-root-cert"
	case Unavailable:
		return "check that this is the address of istiod and that istiod is running"
	case Untrusted:
		var mismatch x509.HostnameError
		if errors.As(err, &mismatch) {
			return fmt.Sprintf("its certificate is for %s: set the chart's value mesh.caServerName, or ISTIOD_SAN in proxyMetadata of Istio's MeshConfig, to one of these names",
				nameList(mismatch.Certificate))
		}
		return "check that this is the address of istiod and that the mesh's roots are istiod's"
	case UnknownKey:
		return "correct it in proxyMetadata of Istio's MeshConfig, or in the chart's value mesh"
	case Unauthenticated:
		id := "none"
		if r.ClusterID != "" {
			id = fmt.Sprintf("%q", r.ClusterID)
		}
		return fmt.Sprintf("istiod's TOKEN_AUDIENCES has to contain the audience %q, and its CLUSTER_ID has to be the cluster ID %s",
			r.TokenAudience, id)
	default:
		return ""
	}
}

// nameList lists the DNS names and addresses that a server's certificate is for.
func nameList(c *x509.Certificate) string {
	const maxNames = 5
	names := make([]string, 0, len(c.DNSNames))
	for _, name := range c.DNSNames {
		names = append(names, fmt.Sprintf("%.100s", name))
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name"
	}
	if more := len(names) - maxNames; more > 0 {
		names = append(names[:maxNames], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
