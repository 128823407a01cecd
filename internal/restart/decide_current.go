package restart

import (
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// decideCurrent decides on the workload that is being restarted.
func decideCurrent(o observation, r record, t timing, now time.Time) decision {
	switch {
	case o.workload == nil:
		return decision{action: actionRelease, reason: "it is gone"}
	case !o.enabled:
		return decision{action: actionRelease, reason: "its namespace is no longer opted in"}
	}
	if asks, problem := policy.WantsRestart(o.workload.GetAnnotations(), o.namespace); !asks && problem == "" {
		return decision{action: actionRelease, reason: "it no longer asks for a restart"}
	}
	if o.pods == nil {
		return decision{action: actionObservePods}
	}
	refused := ""
	if template := o.pods.template(); template != "" && len(o.pods.stale[r.template]) == 0 && !o.rejected {
		// The template changed during the rollout, perhaps back. Pods of the earlier
		// template may never start, so waiting for them could last forever.
		if o.webhook == nil {
			return decision{action: actionObserveWebhook}
		}
		if o.webhook.isSettled(t, now) && o.isTemplateSettled(t, now) {
			if refused = obstacle(o, template); refused == "" {
				return decision{action: actionStart, template: template}
			}
		}
	}
	d := decideRollout(o, r, t, now)
	d.refused = refused
	return d
}

// decideRollout decides on a rollout by how far it is.
func decideRollout(o observation, r record, t timing, now time.Time) decision {
	rollout := o.workload.rollout
	isLate := now.Sub(r.at) >= t.timeout
	switch {
	case !rollout.complete && !isLate && !rollout.failed:
		return decision{action: actionFollow}
	case !rollout.complete:
		note := fmt.Sprintf("was restarted for template %s and is not rolled out: %s. No other workload is restarted until it is. Check its pods; roll back the change that made them fail, or set %s: \"false\" on it to let the other restarts continue",
			r.template, rollout.waitsFor, policy.RestartKey)
		if !rollout.failed {
			note = fmt.Sprintf("%s (after %s)", note, t.timeout)
		}
		return decision{action: actionReportStuck, note: note}
	case len(o.pods.stale)+len(o.pods.notInjected) == 0:
		return decision{action: actionComplete, note: fmt.Sprintf("is rolled out, and %d pods are of template %s", o.pods.current, r.template)}
	case o.workload.restartedFor() != r.template:
		// The restart was never written, or someone removed the annotation.
		return decision{action: actionDiscard}
	}
	fault := "still has stale pods: " + describe(o.pods.stale[o.pods.template()])
	if len(o.pods.notInjected) > 0 {
		fault = "has pods that were not injected: " + describe(o.pods.notInjected)
	}
	return decision{action: actionReportFailed, note: fmt.Sprintf(
		"was restarted for template %s and %s. No other workload is restarted until that is fixed. Make sure that the webhook runs with the controller's settings, and recreate the pods, or set %s: \"false\" to let the other restarts continue",
		r.template, fault, policy.RestartKey)}
}

// describe lists up to three names, or the first and the number of the others.
func describe(names []string) string {
	names = slices.Sorted(slices.Values(names))
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d others", names[0], len(names)-1)
	}
	return fmt.Sprint(names)
}

// patchOutcome is the result of the patch that restarts a workload.
type patchOutcome string

const (
	// patchAccepted: the workload is being restarted.
	patchAccepted patchOutcome = "accepted"
	// patchRefused: the API server or a policy does not allow it.
	patchRefused patchOutcome = "refused"
	// patchOutdated: the workload has changed since it was read, or is gone.
	patchOutdated patchOutcome = "outdated"
	// patchUnknown: the workload may or may not have been restarted.
	patchUnknown patchOutcome = "unknown"
)

// decidePatch decides what the API server's answer to the patch means.
func decidePatch(err error) patchOutcome {
	switch {
	case err == nil:
		return patchAccepted
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return patchRefused
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return patchOutdated
	default:
		return patchUnknown
	}
}
