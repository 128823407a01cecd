package restart

import (
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// decideCandidate decides on the owner of a stale pod. current is the restart that
// is under way; nil when there is none.
func decideCandidate(o observation, current *record, t timing, now time.Time) decision {
	if !o.enabled {
		return decision{action: actionIgnore}
	}
	if o.workload == nil {
		// There is no workload whose annotation could request or decline a restart.
		if asks, _ := policy.WantsRestart(nil, o.namespace); asks && o.unsupported != "" {
			return decision{action: actionRefuse, reason: o.unsupported}
		}
		return decision{action: actionIgnore}
	}
	asks, problem := policy.WantsRestart(o.workload.GetAnnotations(), o.namespace)
	switch {
	case problem != "":
		return decision{action: actionRefuse, reason: problem}
	case !asks, current != nil && current.uid == o.workload.GetUID():
		return decision{action: actionIgnore}
	case current != nil:
		return decision{action: actionWait}
	case o.webhook == nil:
		return decision{action: actionObserveWebhook}
	case !o.webhook.isSettled(t, now):
		return decision{action: actionWait}
	case o.pods == nil:
		return decision{action: actionObservePods}
	}
	template := o.pods.template()
	switch {
	case template == "":
		return decision{action: actionIgnore} // the next report about the namespace omits it
	case !o.isTemplateSettled(t, now):
		return decision{action: actionWait}
	}
	if reason := obstacle(o, template); reason != "" {
		return decision{action: actionRefuse, reason: reason}
	}
	if !o.workload.rollout.complete {
		return decision{action: actionPostpone, template: template,
			note: "is stale and asks to be restarted, and waits for the rollout that is under way: " + o.workload.rollout.waitsFor}
	}
	return decision{action: actionStart, template: template}
}

// obstacle says why a restart for a template would not help; empty when it would.
func obstacle(o observation, template string) string {
	w := o.workload
	switch {
	case w.obstacle != "":
		return w.obstacle
	case w.restartedFor() == template:
		return fmt.Sprintf("it was already restarted for template %s, at %s, and still has stale pods; look for them in the webhook's log, and restart it by hand", template, w.template.Annotations[policy.RestartedAtKey])
	case o.injection.Denied:
		// The rollout would never complete, because no new pod would be admitted.
		return fmt.Sprintf("new pods would be refused: %s: %s", o.injection.Reason, o.injection.Message)
	case o.injection.Reason != policy.Injected:
		return fmt.Sprintf("new pods would not be injected: %s %s", o.injection.Reason, o.injection.Message)
	}
	return ""
}
