package controller

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// nudge changes an annotation of a Secret when that is due, so that an edge which missed
// the last change of the Secret reads it. It returns the time of the next nudge; zero
// when there is none.
func (r *reconciler) nudge(ctx context.Context, s *namespaceState, name string, claims []claim) time.Time {
	state := s.secrets[name]
	if state == nil || state.state != publish.Good || !needsNudges(state.account, claims) {
		return time.Time{}
	}
	now := r.Clock.Now()
	d := decideNudge(state.published, latest(state.nudged, state.nudgeTried), now)
	if d.isDue {
		state.nudgeTried = now
		if err := r.writeNudge(ctx, s.name, name, state.published, now); err != nil {
			log.FromContext(ctx).V(1).Info("secret is not nudged", "secret", name, "why", err.Error())
		}
	}
	return d.next
}

// writeNudge writes the annotation of a nudge, if the Secret is still the one that was
// published at a time.
func (r *reconciler) writeNudge(ctx context.Context, namespace, name string, published, now time.Time) error {
	secret, err := r.Secrets.Get(ctx, namespace, name)
	switch {
	case err != nil:
		return err
	case !policy.IsManaged(secret) || !publish.PublishedAt(secret).Equal(published):
		return fmt.Errorf("secret %s/%s was changed meanwhile", namespace, name)
	}
	_, err = r.Secrets.Annotate(ctx, secret, policy.NudgeKey, now.UTC().Format(time.RFC3339))
	return err
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
