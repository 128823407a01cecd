// Package publish writes a bundle into a Secret: it inspects the Secret, decides,
// and writes with one server-side apply or not at all. The files decide*.go are
// pure; publisher.go acts.
package publish

import (
	"context"
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
)

// FieldManager is the field manager of every apply.
const FieldManager = "isthmus"

// Secrets reads and applies Secrets. Client implements it for a cluster.
type Secrets interface {
	// Get returns the Secret. If there is none, apierrors.IsNotFound is true of the
	// error.
	Get(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Apply is one server-side apply by FieldManager. With a resourceVersion in the
	// Secret it fails with a conflict when the Secret has changed since; a Secret that
	// does not exist is created nevertheless. With a UID in the Secret it fails with a
	// conflict when the Secret does not exist or has another UID. force takes over
	// fields of other field managers, but overrides neither resourceVersion nor UID.
	Apply(ctx context.Context, secret *corev1.Secret, force bool) (*corev1.Secret, error)
}

// Target says which Secret to write, and for which identity.
type Target struct {
	// Namespace and Name identify the Secret.
	Namespace, Name string
	// ID is the identity that the certificate has to have.
	ID spiffeid.ID
	// Source is where the certificate comes from: istio-ca, agent, cert-manager or
	// mirror. It is written as an annotation.
	Source string
	// Labels are labels of the Secret, beside the one that names its manager. Nil keeps
	// those that the Secret has.
	Labels map[string]string
	// Roots are the mesh's trust anchors. Without one, Secrets cannot be checked
	// and nothing is written.
	Roots []*x509.Certificate
}

// String is namespace/name.
func (t Target) String() string { return t.Namespace + "/" + t.Name }

// Rule says when a candidate replaces a valid bundle.
type Rule int

const (
	// WhenDue replaces a bundle at its renewal point, by one that lives at least a
	// tenth longer. So the publishers of many replicas make one write per rotation. A
	// root in the Secret that the publisher does not know stays until then, or for good
	// if somebody added it since the publisher started.
	WhenDue Rule = iota
	// WhenNewer replaces a bundle immediately, by one that was issued later; if both
	// were issued at the same moment, by one that lives longer, or that differs and
	// lives as long. It suits a source that has one certificate at a time, and a writer
	// that knows the mesh's roots at once: roots that are not among them are taken out.
	WhenNewer
)

// Result is how an attempt to publish ended. The set is closed; it is the label
// of the metric isthmus_publish_total.
type Result string

// The results.
const (
	// Published: the Secret was written.
	Published Result = "published"
	// Unchanged: the Secret's content is as good as the candidate; nothing was
	// written.
	Unchanged Result = "unchanged"
	// RefusedForeign: the Secret is not managed by Isthmus.
	RefusedForeign Result = "foreign"
	// RefusedIdentity: the Secret holds a valid bundle of another identity.
	RefusedIdentity Result = "conflict"
	// RefusedImmutable: the Secret is immutable.
	RefusedImmutable Result = "immutable"
	// Failed: the API server refused or could not be reached.
	Failed Result = "error"
)

// Results lists every Result.
func Results() []Result {
	return []Result{Published, Unchanged, RefusedForeign, RefusedIdentity, RefusedImmutable, Failed}
}
