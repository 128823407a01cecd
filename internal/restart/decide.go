package restart

import (
	"time"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// timing holds the durations that decisions depend on.
type timing struct {
	// settle is how long a template must have been current, and the webhook must
	// have served it, before anything is restarted for it.
	settle time.Duration
	// timeout is how long a rollout may take before it counts as stuck.
	timeout time.Duration
}

// webhookState is what is known of the replicas of the webhook.
type webhookState struct {
	// problem says why they may serve another template; empty when they do not.
	problem string
	// since is the start of the time without a problem.
	since time.Time
}

// next is the state after another check, with the problem that it found.
func (s webhookState) next(problem string, now time.Time) webhookState {
	switch {
	case problem != "":
		return webhookState{problem: problem}
	case s.since.IsZero():
		return webhookState{since: now}
	}
	return webhookState{since: s.since}
}

func (s webhookState) isSettled(t timing, now time.Time) bool {
	return s.problem == "" && !s.since.IsZero() && now.Sub(s.since) >= t.settle
}

// observation is what is known of a workload before a decision. The parts that cost
// requests are nil until a decision needs them.
type observation struct {
	// namespace is the workload's; enabled is false when it is not opted in.
	namespace policy.Namespace
	enabled   bool
	// workload is nil when it is gone, or when there is none.
	workload *workload
	// unsupported says why a stale pod belongs to no workload that can be
	// restarted; empty when it does.
	unsupported string
	// webhook is nil until actionObserveWebhook.
	webhook *webhookState
	// pods is nil until actionObservePods, which observes the next two as well.
	pods *podSummary
	// templateSince is since when pods of the namespace are known to be stale for
	// pods.template(); zero when they are not.
	templateSince time.Time
	// injection is the result of the injection engine for a new pod of the workload.
	injection inject.Result
	// rejected is true when the API server did not accept the restart that was
	// decided on before.
	rejected bool
}

// isTemplateSettled reports whether the template has been current for long enough.
func (o observation) isTemplateSettled(t timing, now time.Time) bool {
	return !o.templateSince.IsZero() && now.Sub(o.templateSince) >= t.settle
}

// action is what to do about a workload.
type action string

const (
	// actionObserveWebhook and actionObservePods: the decision needs these facts;
	// observe them and decide again.
	actionObserveWebhook action = "observe-webhook"
	actionObservePods    action = "observe-pods"
	// actionIgnore: leave the workload alone.
	actionIgnore action = "ignore"
	// actionRefuse: leave it alone and say why, once.
	actionRefuse action = "refuse"
	// actionWait: it is not its turn yet.
	actionWait action = "wait"
	// actionPostpone: wait for a rollout that is under way, and say so once.
	actionPostpone action = "postpone"
	// actionStart: restart it for decision.template.
	actionStart action = "start"

	// The following are about the workload that was restarted.

	// actionFollow: its rollout goes on.
	actionFollow action = "follow"
	// actionReportStuck: its rollout takes too long; say so once and keep following.
	actionReportStuck action = "report-stuck"
	// actionReportFailed: its rollout did not help; say so once and keep following.
	actionReportFailed action = "report-failed"
	// actionComplete: its rollout is complete and helped; empty the journal.
	actionComplete action = "complete"
	// actionRelease: other workloads no longer wait for it; empty the journal.
	actionRelease action = "release"
	// actionDiscard: the workload does not carry the recorded restart; empty the
	// journal.
	actionDiscard action = "discard"
)

// decision is an action with what is reported about it.
type decision struct {
	action action
	// template is the hash to restart for: with actionStart and actionPostpone.
	template string
	// reason says why: with actionRefuse and actionRelease.
	reason string
	// note is the note of the Event: with actionPostpone, actionReportStuck,
	// actionReportFailed and actionComplete.
	note string
	// refused says why a workload that is being restarted is not restarted again,
	// although its template has changed; empty otherwise.
	refused string
}

// isWaiting reports whether a candidate counts as waiting for its turn.
func (d decision) isWaiting() bool {
	switch d.action {
	case actionObserveWebhook, actionObservePods, actionWait, actionPostpone, actionStart:
		return true
	default:
		return false
	}
}
