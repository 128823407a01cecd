package controller

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// follow looks at the restart that is under way. free says that nothing has to
// wait for it any more; else state is that of the queue.
func (q *restarter) follow(ctx context.Context, r record) (free bool, state string, err error) {
	ns, enabled, err := q.namespace(ctx, r.namespace)
	if err != nil {
		return false, "", err
	}
	w, err := readWorkload(ctx, q.Kube, r.kind, r.namespace, r.name)
	switch {
	case apierrors.IsNotFound(err) || err == nil && w.GetUID() != r.uid:
		return q.release(ctx, r, nil, "it is gone")
	case err != nil:
		return false, "", err
	case !enabled:
		return q.release(ctx, r, w, "its namespace is not opted in any more")
	}
	if asks, problem := policy.WantsRestart(w.GetAnnotations(), ns); !asks && problem == "" {
		return q.release(ctx, r, w, "it asks for a restart no more")
	}
	p, err := q.judgePods(ctx, ns, w)
	if err != nil {
		return false, "", err
	}
	if template := p.template(); template != "" && len(p.old[r.template]) == 0 {
		// The template changed on the way, a rollback perhaps: waiting for the one
		// before would be waiting for ever where its pods do not start.
		begun, err := q.again(ctx, ns, w, template, r)
		if begun || err != nil {
			return false, queueRolling, err
		}
	}
	if !w.rollout.complete {
		return false, q.wait(r, w), nil
	}
	if len(p.old)+len(p.plain) == 0 {
		return q.finish(ctx, r, w, p)
	}
	if w.restartedFor() != r.template {
		// Whoever wrote the record came no further, or the mark was taken away.
		return true, "", q.book.write(ctx, nil)
	}
	q.vain(r, w, p)
	return false, queueStopped, nil
}

// again restarts the workload of the record for another template.
func (q *restarter) again(ctx context.Context, ns policy.Namespace, w *workload, template string, r record) (begun bool, err error) {
	if !q.isServed(ctx) || !q.settled(w.GetNamespace(), template) {
		return false, nil
	}
	if why := q.obstacle(ns, w, template); why != "" {
		q.refuse(w.reference(), why)
		return false, nil
	}
	return q.begin(ctx, w, template, &r)
}

// wait tells of a rollout that takes too long.
func (q *restarter) wait(r record, w *workload) (state string) {
	late := q.Clock.Since(r.at) >= q.Timeout
	if !late && !w.rollout.failed {
		return queueRolling
	}
	note := fmt.Sprintf("was restarted for template %s and is not rolled out: %s. Nothing else is restarted until it is. Look at its pods; roll back what made them fail, or set %s: \"false\" on it to have the others go on",
		r.template, w.rollout.why, policy.RestartKey)
	if late && !w.rollout.failed {
		note = fmt.Sprintf("%s (after %s)", note, q.Timeout)
	}
	if q.about(w.reference(), corev1.EventTypeWarning, EventRestartStuck, r.template+r.at.String(), note) {
		q.metrics.restarts.WithLabelValues(restartStuck).Inc()
	}
	return queueStopped
}

// vain tells that the new pods are no better.
func (q *restarter) vain(r record, w *workload, p podsOf) {
	what := "has stale pods all the same: " + some(p.old[p.template()])
	if len(p.plain) > 0 {
		what = "has pods that were not injected: " + some(p.plain)
	}
	note := fmt.Sprintf("was restarted for template %s and %s. Nothing else is restarted until that is mended. See that the webhook runs, with the controller's settings, and make the pods anew, or set %s: \"false\" to have the others go on",
		r.template, what, policy.RestartKey)
	if q.about(w.reference(), corev1.EventTypeWarning, EventRestartInVain, r.template+r.at.String(), note) {
		q.metrics.restarts.WithLabelValues(restartInVain).Inc()
	}
}

func some(names []string) string {
	slices.Sort(names)
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d others", names[0], len(names)-1)
	}
	return fmt.Sprint(names)
}

// finish ends a restart that went well.
func (q *restarter) finish(ctx context.Context, r record, w *workload, p podsOf) (free bool, state string, err error) {
	if err := q.book.write(ctx, nil); err != nil {
		return false, queueRolling, err
	}
	q.metrics.restarts.WithLabelValues(restartCompleted).Inc()
	q.about(w.reference(), corev1.EventTypeNormal, EventRestartCompleted, r.template+r.at.String(),
		fmt.Sprintf("is rolled out, and %d pods are of template %s", p.fresh, r.template))
	return true, "", nil
}

// release ends the waiting for a restart that nobody wants any more.
func (q *restarter) release(ctx context.Context, r record, w *workload, why string) (free bool, state string, err error) {
	if err := q.book.write(ctx, nil); err != nil {
		return false, queueRolling, err
	}
	q.metrics.restarts.WithLabelValues(restartReleased).Inc()
	q.log.Info("no longer waiting for a restart", "kind", r.kind, "namespace", r.namespace, "name", r.name, "template", r.template, "why", why)
	if w != nil {
		q.about(w.reference(), corev1.EventTypeNormal, EventRestartReleased, why+r.at.String(), "its restart is not waited for any longer: "+why)
	}
	return true, "", nil
}
