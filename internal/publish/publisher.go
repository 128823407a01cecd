package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// attempts is how often Publish evaluates before it gives up. Each conflict means
// that someone else has written, and after one of ours wrote there is nothing
// left to do, so that more than two are rare.
const attempts = 6

// Publisher keeps Secrets.
type Publisher struct {
	// Secrets is where they are.
	Secrets Secrets
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Outcome is how an attempt to publish ended.
type Outcome struct {
	Result Result
	// Cause says why the Secret was written, or was not. Empty when the API
	// server could not be asked.
	Cause Cause
	// Standing is what stands there now.
	Standing Standing
	// Again is when to publish again although nothing has changed, zero when
	// only a change can make a difference.
	Again time.Time
	// Conflicts is how often someone else's write came in between.
	Conflicts int
}

// Look reads and judges what stands there.
func (p *Publisher) Look(ctx context.Context, target Target) (Standing, error) {
	if len(target.Roots) == 0 {
		return Standing{}, fmt.Errorf("secret %s: %w", target, errNoRoots)
	}
	secret, err := p.Secrets.Get(ctx, target.Namespace, target.Name)
	if apierrors.IsNotFound(err) {
		secret, err = nil, nil
	}
	if err != nil {
		return Standing{}, fmt.Errorf("read secret %s: %w", target, err)
	}
	return Inspect(secret, target, p.now()), nil
}

// Publish puts the bundle into the Secret, when the rule says so: at most one
// write, with the version in it that was judged. On every conflict it reads and
// decides anew. Fields that someone else manages are taken over only when the
// Secret, read again after that conflict, is ours and has to be written. A nil
// bundle changes roots and labels alone.
//
// The error is nil when the Result is Published or Unchanged, and says what is
// there and the way out when the Secret is refused.
func (p *Publisher) Publish(ctx context.Context, target Target, bundle *certs.Bundle, rule Rule) (Outcome, error) {
	var out Outcome
	force := false
	for {
		standing, err := p.Look(ctx, target)
		if err != nil {
			out.Result = Failed
			return out, err
		}
		d := Decide(standing, bundle, rule, p.now())
		out.Standing, out.Cause, out.Again = standing, d.Cause, d.Again
		if !d.Write {
			out.Result = resultOf(d)
			return out, d.Err
		}
		applied, err := p.Secrets.Apply(ctx, standing.compose(d.Bundle, d.RenewAfter), force)
		if err == nil {
			out.Result, out.Standing = Published, Inspect(applied, target, p.now())
			return out, nil
		}
		out.Result = Failed
		if !apierrors.IsConflict(err) {
			return out, fmt.Errorf("write secret %s: %w", target, err)
		}
		out.Conflicts++
		if out.Conflicts == attempts {
			return out, fmt.Errorf("write secret %s: gave up after %d conflicts: %w", target, attempts, err)
		}
		force = isManagerConflict(err)
	}
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

// isManagerConflict tells a conflict about fields that someone else manages from
// one about the version, which has the same status.
func isManagerConflict(err error) bool {
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
