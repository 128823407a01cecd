package policy

// Reason says why a pod came out as it did. The set is closed and the same in
// the response, the audit annotations, the metric, the log, Events and the CLI.
type Reason string

// The reason codes.
const (
	// Injected: the pod got its identity.
	Injected Reason = "injected"
	// AlreadyInjected: the pod carries what its own status says we added.
	AlreadyInjected Reason = "already-injected"
	// IntegratedByHand: the pod brings an Istio integration of its own.
	IntegratedByHand Reason = "integrated-by-hand"
	// OptedOut: nobody asked for this pod, or it said no.
	OptedOut Reason = "opted-out"
	// NoProfile: no profile recognises the pod as an edge.
	NoProfile Reason = "no-profile"
	// ExcludedNamespace: the namespace is excluded, or locked by its label.
	ExcludedNamespace Reason = "excluded-namespace"
	// UnsupportedOS: the pod runs on Windows.
	UnsupportedOS Reason = "unsupported-os"
	// Conflict: the pod has something that what we add would collide with.
	Conflict Reason = "conflict"
	// InvalidOverride: a key that steers the injection has an invalid value.
	InvalidOverride Reason = "invalid-override"
	// InternalError: Isthmus itself is at fault.
	InternalError Reason = "internal-error"
)
