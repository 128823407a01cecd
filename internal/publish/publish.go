// Package publish puts a bundle into a Secret: it judges what stands there,
// decides, and writes with one server-side apply, or not at all.
package publish

import (
	"context"
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
)

// Manager is the field manager of every apply.
const Manager = "isthmus"

// Secrets reads and applies Secrets. Client is the one for a cluster.
type Secrets interface {
	// Get returns the Secret, and an error that apierrors.IsNotFound knows
	// where there is none.
	Get(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Apply is one server-side apply by Manager. A resourceVersion in the
	// Secret makes it fail with a conflict when the Secret has changed since;
	// where there is none it is created all the same. A UID in it makes it fail
	// with a conflict where there is none, or another one. force takes over
	// fields that someone else manages, and overrules neither.
	Apply(ctx context.Context, secret *corev1.Secret, force bool) (*corev1.Secret, error)
}

// Target says what Secret to keep, and for whom.
type Target struct {
	Namespace, Name string
	// ID is the identity that belongs into it.
	ID spiffeid.ID
	// Source is where its certificate comes from: istio-ca, agent,
	// cert-manager or mirror. It ends up in an annotation.
	Source string
	// Roots are the mesh's trust anchors. Without one nothing is judged and
	// nothing is written.
	Roots []*x509.Certificate
}

// String is namespace/name.
func (t Target) String() string { return t.Namespace + "/" + t.Name }

// Rule says when a bundle replaces a good one.
type Rule int

const (
	// WhenDue replaces it at its renewal point, by one that lives at least a tenth
	// longer. So the publishers of many replicas make one write per rotation.
	WhenDue Rule = iota
	// WhenNewer replaces it at once, by one that lives longer, or that differs and
	// lives as long; never by one that lives shorter. For a source that has one
	// certificate at a time.
	WhenNewer
)

// Result is how an attempt to publish ended. The set is closed; it is the label
// of the metric isthmus_publish_total.
type Result string

// The results.
const (
	// Published: the Secret was written.
	Published Result = "published"
	// Unchanged: what stands there is as good; nothing was written.
	Unchanged Result = "unchanged"
	// RefusedForeign: the Secret is someone else's.
	RefusedForeign Result = "foreign"
	// RefusedIdentity: a valid bundle of another identity stands there.
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
