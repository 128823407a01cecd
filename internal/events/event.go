// Package events records Kubernetes Events. A Recorder writes them in the
// background, and a Once records a condition once for as long as it lasts.
package events

import (
	corev1 "k8s.io/api/core/v1"
)

// Event is one occurrence to record. It is plain data, so a pure decision can
// return it.
type Event struct {
	// Regarding is the object of the Event, which is created in its namespace.
	Regarding corev1.ObjectReference
	// Type is corev1.EventTypeNormal or corev1.EventTypeWarning.
	Type string
	// Reason is a word in CamelCase, or the code of a warning.
	Reason string
	// Note is a sentence for people. The Recorder cuts it to 1024 bytes, the
	// maximum of the events API.
	Note string
}

// Normal returns an Event of type Normal.
func Normal(regarding corev1.ObjectReference, reason, note string) Event {
	return Event{Regarding: regarding, Type: corev1.EventTypeNormal, Reason: reason, Note: note}
}

// Warning returns an Event of type Warning.
func Warning(regarding corev1.ObjectReference, reason, note string) Event {
	return Event{Regarding: regarding, Type: corev1.EventTypeWarning, Reason: reason, Note: note}
}
