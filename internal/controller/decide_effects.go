package controller

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

// effects are the Events and metrics of a decision.
type effects struct {
	// events are recorded once each, or resolved, in this order.
	events []eventChange
	// results are counted in isthmus_publish_total, and rejected in
	// isthmus_bundle_rejected_total.
	results  []publish.Result
	rejected []certs.Reason
	// formerTarget is the target whose gauges are deleted; nil when there is none.
	formerTarget *publish.Target
	// isObserved is true when the gauges follow the holder's observation.
	isObserved bool
	// isPublished is true when the Secret was written.
	isPublished bool
}

// eventChange records an Event, or resolves it: then only object and reason
// matter.
type eventChange struct {
	events.Event
	isResolved bool
}

func (e *effects) record(event events.Event) { e.events = append(e.events, eventChange{Event: event}) }

func (e *effects) resolve(regarding corev1.ObjectReference, reasons ...string) {
	for _, reason := range reasons {
		e.events = append(e.events, eventChange{Event: events.Event{Regarding: regarding, Reason: reason}, isResolved: true})
	}
}

func (e *effects) reject(err error) {
	if reason := certs.ReasonOf(err); reason != "" {
		e.rejected = append(e.rejected, reason)
	}
}
