package controller

import (
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

// secretSteps takes the steps of a check: in a cluster, or in a simulation in
// virtual time.
type secretSteps struct {
	now    func() time.Time
	random func() float64
	// apply is called with every decision, the last included, before its step: it
	// remembers the state and applies the effects.
	apply func(d secretDecision)
	// issue sends d.request to d.source.
	issue func(d secretDecision) (*certs.Bundle, error)
	// publish writes d.bundle for d.target, by d.rule. Without a bundle it writes roots
	// and labels, and brings the renewal point forward to d.renewBy.
	publish func(d secretDecision) (publish.Outcome, error)
	// remove removes the objects that d.formerSource created.
	remove func(d secretDecision) error
}

// takeSecretSteps takes the step of each decision and decides on its result, until
// the check is done. It returns the last decision.
func takeSecretSteps(d secretDecision, s secretSteps) secretDecision {
	for {
		s.apply(d)
		switch d.step {
		case stepDone:
			return d
		case stepIssue:
			bundle, err := s.issue(d)
			d = decideIssuance(d, bundle, err, s.now(), s.random)
		case stepPublish:
			outcome, err := s.publish(d)
			d = decideOutcome(d, outcome, err, s.now(), s.random)
		case stepRemove:
			err := s.remove(d)
			d = decideRemoval(d, err, s.now(), s.random)
		default:
			return d.fail(fmt.Errorf("secret %s/%s: unexpected step %q", d.holder.target.Namespace, d.holder.target.Name, d.step))
		}
	}
}
