// Package inject edits a pod so that it gets an Istio identity, and reverts the edit.
// It is pure: no client, no clock, no logger. The webhook, the controller and the
// command line share it.
package inject

import (
	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Request is a pod to decide on.
type Request struct {
	// Pod is only read.
	Pod *corev1.Pod
	// Namespace holds the name, labels and annotations of the pod's namespace.
	Namespace policy.Namespace
	// Template is true for a pod template in a file. The API server has not yet
	// added to it what comes from its service account.
	Template bool
}

// Result is a decision and the patch that carries it out.
type Result struct {
	// Reason is the code of the decision.
	Reason policy.Reason
	// Denied is true if the pod must be refused. Message then says why, in one
	// sentence for the user.
	Denied bool
	// Message is one sentence for the user. It is empty if there is nothing to say.
	Message string
	// Warnings are for the user. They are not errors.
	Warnings []policy.Warning
	// Profile and Mode are empty if the decision came before they were known.
	Profile string
	Mode    policy.Mode
	// Template is the hash of the template that an injected pod would get today. It
	// is empty if the hash cannot be computed, and for a pod that is not injected
	// yet.
	Template string
	// Patch turns the pod into the injected pod. The operations are additions and
	// replacements, to be applied in order. It is empty unless Reason is Injected.
	// Results share it, so it must not be changed.
	Patch []jsonpatch.Operation
	// EncodedPatch is Patch as JSON.
	EncodedPatch []byte
}

func denied(reason policy.Reason, message string) Result {
	return Result{Reason: reason, Denied: true, Message: message}
}
