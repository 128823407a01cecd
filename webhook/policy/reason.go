package policy

// Reason is the code of a decision on a pod. The set is closed and the same in
// the response, the audit annotations, the metric, the log, Events and the CLI.
type Reason string

// The reason codes.
const (
	// Injected: Isthmus added the pod's identity.
	Injected Reason = "injected"
	// AlreadyInjected: the pod has a valid status annotation, and everything that
	// the annotation lists.
	AlreadyInjected Reason = "already-injected"
	// ManualIntegration: the pod was integrated with Istio by hand.
	ManualIntegration Reason = "integrated-by-hand"
	// OptedOut: neither pod nor namespace opted in, or the pod opted out.
	OptedOut Reason = "opted-out"
	// NoProfile: no profile recognises the pod as an edge.
	NoProfile Reason = "no-profile"
	// ExcludedNamespace: the namespace is excluded, or locked by its label.
	ExcludedNamespace Reason = "excluded-namespace"
	// UnsupportedOS: the pod runs on Windows.
	UnsupportedOS Reason = "unsupported-os"
	// Conflict: something in the pod collides with what Isthmus would add.
	Conflict Reason = "conflict"
	// InvalidOverride: a key that configures the injection has an invalid value.
	InvalidOverride Reason = "invalid-override"
	// InternalError: Isthmus itself failed.
	InternalError Reason = "internal-error"
)
