package publish

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// maxAttempts is how often Publish reads, decides and applies before it gives up.
// Every conflict means that someone else has written. Once another publisher has
// written there is nothing left to do, so more than two attempts are rare.
const maxAttempts = 6

// Publisher writes bundles into Secrets. It is safe for concurrent use.
type Publisher struct {
	// Secrets reads and applies the Secrets. Required.
	Secrets Secrets
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// RenewBy brings the renewal point of a Secret of which only the roots are written
	// forward to this time. Default: the renewal point stays. Some edges notice new roots
	// only together with a new certificate.
	RenewBy time.Time

	mu sync.Mutex
	// memory is what is remembered of the roots of each Secret, for Rule WhenDue.
	memory map[string]rootMemory
}

// Outcome is how an attempt to publish ended.
type Outcome struct {
	// Result sums the attempt up.
	Result Result
	// Cause says why the Secret was written, or why it was not. Empty when the
	// Secret could not be read.
	Cause Cause
	// Observation is the Secret after the attempt.
	Observation Observation
	// NextCheck is when to publish again although nothing has changed. Zero when
	// only a change can make a difference.
	NextCheck time.Time
	// Conflicts is how often someone else wrote between the read and the apply.
	Conflicts int
}

// Observe reads and inspects a Secret.
func (p *Publisher) Observe(ctx context.Context, target Target) (Observation, error) {
	if len(target.Roots) == 0 {
		return Observation{}, fmt.Errorf("secret %s: %w", target, errNoRoots)
	}
	secret, err := p.Secrets.Get(ctx, target.Namespace, target.Name)
	if apierrors.IsNotFound(err) {
		secret, err = nil, nil
	}
	if err != nil {
		return Observation{}, fmt.Errorf("read secret %s: %w", target, err)
	}
	return Inspect(secret, target, p.now()), nil
}

// Publish writes the bundle into the Secret if Decide says so: at most one write,
// with the resourceVersion that was inspected. After every conflict it reads and
// decides again. It takes over fields of another field manager only if the Secret,
// read again after that conflict, still has to be written. A nil bundle changes
// roots, label and annotations only. With Rule WhenDue a Publisher that lasts
// remembers the roots that it has seen, and takes out those that it knows to be gone.
//
// The error is nil when the Result is Published or Unchanged. When the Result is a
// refusal, the error says why and what to do.
func (p *Publisher) Publish(ctx context.Context, target Target, bundle *certs.Bundle, rule Rule) (Outcome, error) {
	var out Outcome
	force := false
	for {
		o, err := p.Observe(ctx, target)
		if err != nil {
			out.Result = Failed
			return out, err
		}
		if rule == WhenDue {
			o = p.rememberRoots(o)
		}
		d := Decide(o, bundle, rule, p.now()).renewBy(p.RenewBy)
		out.Observation, out.Cause, out.NextCheck = o, d.Cause, d.NextCheck
		if !d.Write {
			out.Result = resultOf(d)
			return out, d.Err
		}
		applied, err := p.Secrets.Apply(ctx, o.desiredSecret(d, p.now()), force)
		if err == nil {
			out.Result, out.Observation = Published, Inspect(applied, target, p.now())
			p.rememberRoots(out.Observation)
			return out, nil
		}
		out.Result = Failed
		if !apierrors.IsConflict(err) {
			return out, fmt.Errorf("write secret %s: %w", target, err)
		}
		out.Conflicts++
		if out.Conflicts == maxAttempts {
			return out, fmt.Errorf("write secret %s: gave up after %d conflicts: %w", target, maxAttempts, err)
		}
		force = isFieldManagerConflict(err)
	}
}

// rememberRoots applies what is remembered of the Secret's roots to an observation.
func (p *Publisher) rememberRoots(o Observation) Observation {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.memory == nil {
		p.memory = map[string]rootMemory{}
	}
	name := o.target.String()
	o, p.memory[name] = p.memory[name].apply(o, p.now())
	return o
}

func (p *Publisher) now() time.Time {
	if p.Now == nil {
		return time.Now()
	}
	return p.Now()
}

func resultOf(d Decision) Result {
	switch {
	case d.Cause == CauseForeign:
		return RefusedForeign
	case d.Cause == CauseIdentity:
		return RefusedIdentity
	case d.Cause == CauseImmutable:
		return RefusedImmutable
	case d.Err != nil:
		return Failed
	}
	return Unchanged
}

// isFieldManagerConflict distinguishes a conflict with another field manager from
// one about the resourceVersion. Both have the same status code.
func isFieldManagerConflict(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	for _, cause := range status.Status().Details.Causes {
		if cause.Type == metav1.CauseTypeFieldManagerConflict {
			return true
		}
	}
	return false
}

var _ Secrets = (*Client)(nil)
