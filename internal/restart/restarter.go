package restart

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/events"
)

// Restarter restarts stale workloads. Only the leader runs it. The state that must
// survive a change of leader is in the cluster: the record in the ConfigMap, and the
// template's hash on the workload.
type Restarter struct {
	Options
	metrics *restartMetrics
	journal journal
	reports *reports

	// Only Start uses the following fields. A new leader observes their values again.

	// cursor is the next candidate to consider.
	cursor  int
	webhook webhookState
	// waiting are the workloads that request a restart and wait for their turn, by
	// the key of their candidate.
	waiting map[string]string
	once    events.Once
}

// New returns a Restarter, and registers its metrics.
func New(o Options) (*Restarter, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	metrics, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	return &Restarter{
		Options: o, metrics: metrics, journal: journal{kube: o.Kube, namespace: o.Namespace}, reports: newReports(),
		waiting: map[string]string{}, once: events.NewOnce(o.Events.Record),
	}, nil
}

// Report replaces the stale pods of a namespace. It may be called at any time.
func (r *Restarter) Report(namespace string, pods []StalePod) {
	r.reports.replace(namespace, pods, r.Clock.Now())
}

func (r *Restarter) timing() timing { return timing{settle: r.Settle, timeout: r.Timeout} }

// Start restarts workloads until ctx ends. It implements manager.Runnable.
func (r *Restarter) Start(ctx context.Context) error {
	for {
		if err := r.step(ctx); err != nil && ctx.Err() == nil {
			r.Log.Error(err, "restart stale workloads; retrying")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.Interval):
		}
	}
}

// step follows the restart that is under way, or starts the next.
func (r *Restarter) step(ctx context.Context) error {
	if r.Ready() != nil {
		return nil
	}
	current, err := r.journal.load(ctx)
	if err != nil {
		return err
	}
	state := queueIdle
	if current != nil {
		if state, err = r.checkCurrent(ctx, *current); err != nil {
			return err
		}
		if state == queueIdle {
			current = nil
		}
	}
	started, err := r.considerCandidates(ctx, current)
	if started {
		state = queueRolling
	}
	different := slices.Compact(slices.Sorted(maps.Values(r.waiting)))
	r.metrics.setQueue(len(different), state)
	return err
}

// considerCandidates considers some owners of stale pods and restarts the first that
// may be restarted. While current is under way it only records which of them wait.
// An error about one of them does not stop the others.
func (r *Restarter) considerCandidates(ctx context.Context, current *record) (started bool, err error) {
	list := r.reports.candidates()
	keys := make(map[string]bool, len(list))
	for _, c := range list {
		keys[c.key] = true
	}
	maps.DeleteFunc(r.waiting, func(key, _ string) bool { return !keys[key] })
	if len(list) == 0 {
		if current == nil {
			r.once.Reset()
		}
		return false, nil
	}
	var errs []error
	for _, i := range nextBatch(len(list), r.cursor) {
		r.cursor = i + 1
		started, err := r.considerCandidate(ctx, list[i], current)
		if started || ctx.Err() != nil {
			return started, errors.Join(append(errs, err)...)
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}

// considerCandidate observes a candidate, decides and acts.
func (r *Restarter) considerCandidate(ctx context.Context, c candidate, current *record) (started bool, err error) {
	delete(r.waiting, c.key)
	o, err := r.observeCandidate(ctx, c)
	if err != nil {
		return false, err
	}
	for {
		d := decideCandidate(o, current, r.timing(), r.Clock.Now())
		delete(r.waiting, c.key)
		if d.isWaiting() {
			r.waiting[c.key] = o.workload.String()
		}
		switch d.action {
		case actionObserveWebhook:
			r.observeWebhook(ctx, &o)
			continue
		case actionObservePods:
			if err := r.observePods(ctx, &o); err != nil {
				return false, err
			}
			continue
		case actionRefuse:
			regarding := c.ownerReference()
			if o.workload != nil {
				regarding = o.workload.reference()
			}
			r.recordRefusal(regarding, d.reason)
		case actionWait:
			if o.webhook != nil && o.webhook.problem != "" {
				r.Log.V(1).Info("no restarts while the webhook may serve another template", "why", o.webhook.problem)
			}
		case actionPostpone:
			r.once.RecordFor(d.template, events.Warning(o.workload.reference(), EventPostponed, d.note))
		case actionStart:
			return r.restart(ctx, o.workload, d.template, nil)
		}
		return false, nil
	}
}

// checkCurrent observes the workload that is being restarted, decides and acts. The
// state is queueIdle when the next workload may be restarted.
func (r *Restarter) checkCurrent(ctx context.Context, current record) (queueState, error) {
	o, err := r.observeCurrent(ctx, current)
	if err != nil {
		return queueIdle, err
	}
	basis := current.template + current.at.String()
	for {
		d := decideCurrent(o, current, r.timing(), r.Clock.Now())
		if d.refused != "" {
			r.recordRefusal(o.workload.reference(), d.refused)
		}
		switch d.action {
		case actionObserveWebhook:
			r.observeWebhook(ctx, &o)
		case actionObservePods:
			if err := r.observePods(ctx, &o); err != nil {
				return queueIdle, err
			}
		case actionStart:
			started, err := r.restart(ctx, o.workload, d.template, &current)
			if started || err != nil {
				return queueRolling, err
			}
			o.rejected = true
		case actionFollow:
			return queueRolling, nil
		case actionReportStuck:
			r.recordCounted(basis, resultStuck, events.Warning(o.workload.reference(), EventStuck, d.note))
			return queueStopped, nil
		case actionReportFailed:
			r.recordCounted(basis, resultFailed, events.Warning(o.workload.reference(), EventFailed, d.note))
			return queueStopped, nil
		case actionComplete, actionRelease, actionDiscard:
			return r.finish(ctx, o, current, d)
		default:
			return queueRolling, fmt.Errorf("restart of %s %s/%s: unexpected action %q", current.kind, current.namespace, current.name, d.action)
		}
	}
}

// finish empties the journal and reports why.
func (r *Restarter) finish(ctx context.Context, o observation, current record, d decision) (queueState, error) {
	if err := r.journal.store(ctx, nil); err != nil {
		return queueRolling, err
	}
	switch d.action {
	case actionComplete:
		r.metrics.count(resultCompleted)
		r.once.RecordFor(current.template+current.at.String(), events.Normal(o.workload.reference(), EventCompleted, d.note))
	case actionRelease:
		r.metrics.count(resultReleased)
		r.Log.Info("no longer waiting for a restart", "kind", current.kind, "namespace", current.namespace, "name", current.name,
			"template", current.template, "why", d.reason)
		if o.workload != nil {
			r.once.RecordFor(d.reason+current.at.String(), events.Normal(o.workload.reference(), EventReleased, "other workloads no longer wait for its restart: "+d.reason))
		}
	}
	return queueIdle, nil
}

// restart writes the record, then restarts the workload. If the API server refuses
// the restart, the previous record is restored: nil, or the restart that was under
// way.
func (r *Restarter) restart(ctx context.Context, w *workload, template string, before *record) (started bool, err error) {
	now := r.Clock.Now()
	err = r.journal.store(ctx, &record{kind: w.kind, namespace: w.GetNamespace(), name: w.GetName(), uid: w.GetUID(), template: template, at: now})
	if err != nil {
		return false, err
	}
	err = patchRestart(ctx, r.Kube, w, template, now)
	switch decidePatch(err) {
	case patchRefused:
		r.recordRefusal(w.reference(), err.Error())
		return false, r.journal.store(ctx, before)
	case patchOutdated:
		return false, r.journal.store(ctx, before)
	case patchUnknown:
		// The record stays. If the workload was not restarted, decideCurrent discards it.
		return false, err
	}
	r.metrics.count(resultStarted)
	r.once.RecordFor(template+now.String(), events.Normal(w.reference(), EventRestarted,
		fmt.Sprintf("its pods are stale: restarted for template %s; no other workload is restarted until it is rolled out", template)))
	return true, nil
}

// recordRefusal reports once that a workload asks to be restarted and is not.
func (r *Restarter) recordRefusal(regarding corev1.ObjectReference, reason string) {
	r.recordCounted(reason, resultRefused, events.Warning(regarding, EventRefused, "asks to be restarted when stale, and is not: "+reason))
}

// recordCounted records an Event once for its basis, and counts it when it is new.
func (r *Restarter) recordCounted(basis, result string, e events.Event) {
	if r.once.RecordFor(basis, e) {
		r.metrics.count(result)
	}
}
