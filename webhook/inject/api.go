// Package inject edits a pod so that it gets an Istio identity, and takes the
// edit back. It is pure: no client, no clock, no logger. The webhook and the
// command line share it.
package inject

import (
	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Request is one pod to decide on.
type Request struct {
	// Pod is read, never written.
	Pod *corev1.Pod
	// Namespace holds the facts of the pod's namespace.
	Namespace policy.Namespace
	// Template is true for a pod template in a file: the API server has not
	// yet given it what its service account brings.
	Template bool
}

// Result is what was decided and how to do it.
type Result struct {
	// Reason is the code of the decision.
	Reason policy.Reason
	// Denied is true when the pod must be refused; Message then says why in a
	// sentence for the user.
	Denied bool
	// Message is one sentence for a user; empty where there is nothing to say.
	Message string
	// Warnings are what the user should know but is no error.
	Warnings []policy.Warning
	// Profile and Mode are empty where the decision came before they were known.
	Profile string
	Mode    policy.Mode
	// Template is the hash of what a pod that is injected already would get today;
	// empty where that cannot be said, and for every other pod.
	Template string
	// Patch turns the pod into the injected one: additions against the pod, to
	// be applied in order. Empty unless Reason is Injected. Shared between
	// results: read it only.
	Patch []jsonpatch.Operation
	// EncodedPatch is Patch as JSON.
	EncodedPatch []byte
}

func denied(reason policy.Reason, message string) Result {
	return Result{Reason: reason, Denied: true, Message: message}
}
