package controller

import (
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// PublisherRole is the name of the chart's ClusterRole for the in-pod publisher,
// and of the RoleBindings to it.
const PublisherRole = "isthmus-publisher"

// ownership says who manages an object.
type ownership string

const (
	// notObserved: the object was not read.
	notObserved ownership = ""
	// absent: there is none.
	absent ownership = "absent"
	// managed: Isthmus does.
	managed ownership = "managed"
	// unmanaged: someone else does.
	unmanaged ownership = "unmanaged"
)

// ownershipOf interprets the answer to a read.
func ownershipOf(current metav1.Object, err error) (ownership, error) {
	switch {
	case apierrors.IsNotFound(err):
		return absent, nil
	case err != nil:
		return notObserved, err
	case policy.IsManaged(current):
		return managed, nil
	default:
		return unmanaged, nil
	}
}

// ownedObservation is what is known of an object other than the edges' Secrets.
type ownedObservation struct {
	// wanted is the content that is wanted; empty when there should be no object.
	wanted string
	// applied is the content that is known to be applied, and isKnown whether any is:
	// the empty content means that Isthmus manages no such object.
	applied string
	isKnown bool
	// rescanned is true from the second scan of the namespace on.
	rescanned bool
	// current is notObserved until the object was read.
	current ownership
}

// ownedAction is what to do about an object.
type ownedAction string

const (
	// ownedKeep: do nothing.
	ownedKeep ownedAction = "keep"
	// ownedObserve: read the object and decide again.
	ownedObserve ownedAction = "observe"
	// ownedApply: apply the content that is wanted, and remember it.
	ownedApply ownedAction = "apply"
	// ownedReport: leave the object as it is, because Isthmus does not manage it, and
	// report that.
	ownedReport ownedAction = "report"
	// ownedDelete: delete the object, and remember that.
	ownedDelete ownedAction = "delete"
	// ownedForget: remember that Isthmus manages no such object.
	ownedForget ownedAction = "forget"
)

// decideOwned decides on an object. An object that is known to be applied is not
// read again before the next scan. An object that is not wanted may be left over
// from an earlier leader; that is checked at the second scan, because most
// namespaces never had such an object and a new leader has more urgent work.
func decideOwned(o ownedObservation) ownedAction {
	switch {
	case o.wanted != "" && o.applied == o.wanted:
		return ownedKeep
	case o.wanted == "" && o.isKnown && o.applied == "":
		return ownedKeep
	case o.wanted == "" && !o.isKnown && !o.rescanned:
		return ownedKeep
	case o.current == notObserved:
		return ownedObserve
	case o.wanted == "" && o.current == managed:
		return ownedDelete
	case o.wanted == "":
		return ownedForget
	case o.current == unmanaged:
		return ownedReport
	default:
		return ownedApply
	}
}

// desiredBinding is the RoleBinding that allows exactly the service accounts whose
// pods have the publisher to write their namespace's Secret. It is nil when there
// are none.
func desiredBinding(namespace string, claims []claim) map[string]any {
	var accounts []string
	for _, c := range claims {
		if c.options.Source == policy.Agent && c.uid != "" {
			accounts = append(accounts, c.serviceAccount)
		}
	}
	if len(accounts) == 0 {
		return nil
	}
	slices.Sort(accounts)
	var subjects []any
	for _, name := range slices.Compact(accounts) {
		subjects = append(subjects, map[string]any{"kind": "ServiceAccount", "name": name, "namespace": namespace})
	}
	return map[string]any{
		"roleRef":  map[string]any{"apiGroup": publisherBinding.Group, "kind": "ClusterRole", "name": PublisherRole},
		"subjects": subjects,
	}
}

// needsRoots reports whether a Secret needs the Secret with the mesh's roots beside it:
// when an edge of it reads one, or when a TLSContext names it. A TLSContext of the
// user's own may name it too, so it does not matter whether Isthmus keeps one.
func needsRoots(secret string, claims []claim, options policy.Options) bool {
	for _, c := range claims {
		if c.options.SecretName == secret && c.mode.HasCertificate() && (c.secret.Has(patches.FormRoots) || options.TLSContext != "" && options.SecretName == secret) {
			return true
		}
	}
	return false
}

// desiredRoots is the content of the Secret with the mesh's roots that belongs to a
// Secret: the roots of its bundle. It is empty while the Secret holds no valid
// bundle. s is nil for a Secret that no edge claims.
func desiredRoots(s *secretState) string {
	if s == nil || s.state != publish.Good {
		return ""
	}
	return s.roots.Value()
}
