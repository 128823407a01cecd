package inject

import "github.com/isthmus-mesh/isthmus/webhook/policy"

// Staleness says how an injected pod differs from what the webhook would make of
// it today.
type Staleness struct {
	// Stale is false for a pod of the current template.
	Stale bool
	// Template is the hash of the current template. It is empty for a pod that was
	// changed by hand, so that its current template is unknown.
	Template string
	// Message describes the difference in a sentence.
	Message string
}

// Staleness interprets the result for a pod that carries the label
// isthmus.dev/injected.
func (r Result) Staleness() Staleness {
	if r.Reason != policy.AlreadyInjected {
		return Staleness{Stale: true, Message: r.Message}
	}
	for _, w := range r.Warnings {
		if w.Code == StaleTemplate {
			return Staleness{Stale: true, Template: r.Template, Message: w.Text}
		}
	}
	return Staleness{}
}
