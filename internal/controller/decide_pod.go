package controller

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// recentPod is the age up to which the warnings of a pod are repeated as Events:
// an earlier leader repeated those of older pods.
const recentPod = time.Hour

// StalePod is a pod that was injected with another template than the current one.
type StalePod struct {
	// Pod and UID identify the pod.
	Pod types.NamespacedName
	UID types.UID
	// Mode is the mode that the pod was injected in.
	Mode policy.Mode
	// Owner is the controller of the pod; nil when it has none.
	Owner *metav1.OwnerReference
	// Template is the hash of the current template. It is empty for a pod that was
	// changed by hand.
	Template string
}

// podClass says what a pod of an opted-in namespace counts as.
type podClass string

const (
	// podIgnored: the pod is not an edge, or it was not injected and has ended or is
	// terminating.
	podIgnored podClass = "ignored"
	// podMissing: the pod would be injected today and is not.
	podMissing podClass = "missing"
	// podEnded: the pod was injected and has ended, so that it claims nothing.
	podEnded podClass = "ended"
	// podInvalid: the annotations of pod and namespace do not say what it needs.
	podInvalid podClass = "invalid"
	// podClaiming: the pod is an edge and needs podDecision.claim.
	podClaiming podClass = "claiming"
)

// podObservation is what is known of a pod of an opted-in namespace.
type podObservation struct {
	pod       *corev1.Pod
	namespace policy.Namespace
	// result is the injection engine's, if needsInjectionResult.
	result inject.Result
	// edge is the edge in the pod; nil when no single one is recognised.
	edge *inject.Edge
	// before is the pod's claim so far. isKnown is false when it has none.
	before  claim
	isKnown bool
}

// podDecision is the class of a pod with what to report.
type podDecision struct {
	class podClass
	// mode is the mode that the pod would be injected in: with podMissing.
	mode policy.Mode
	// claim is the pod's from now on, if isClaiming. It stays as it was when the
	// annotations have become invalid.
	claim      claim
	isClaiming bool
	// isIdle is true for an injected pod that claims nothing: it is not read again
	// before the next scan.
	isIdle bool
	// isUnclear is true for a pod that holds a Secret while nothing says which: its
	// annotations are invalid, and it never had a claim.
	isUnclear bool
	// stale is nil when the pod has the current template.
	stale *StalePod
	// events are recorded once each.
	events []events.Event
	// repeatsWarnings is true when the webhook's warnings about the pod are to be
	// recorded as Events.
	repeatsWarnings bool
}

// needsInjectionResult reports whether the class of a pod depends on the injection
// engine.
func needsInjectionResult(pod *corev1.Pod) bool {
	return !hasEnded(pod) && (isInjected(pod) || pod.DeletionTimestamp.IsZero())
}

func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func isInjected(pod *corev1.Pod) bool {
	_, injected := pod.Labels[policy.InjectedLabel]
	return injected
}

// decidePod classifies a pod.
func decidePod(o podObservation, r rules, now time.Time) podDecision {
	pod := o.pod
	switch {
	case !isInjected(pod) && needsInjectionResult(pod) && o.result.Reason == policy.Injected:
		return podDecision{class: podMissing, mode: o.result.Mode}
	case !isInjected(pod):
		return podDecision{class: podIgnored}
	case hasEnded(pod):
		return podDecision{class: podEnded, isIdle: true}
	}
	d := podDecision{claim: o.before, isClaiming: o.isKnown}
	if s := o.result.Staleness(); s.Stale {
		d.stale = &StalePod{
			Pod: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, UID: pod.UID,
			Mode: knownMode(pod.Labels[policy.InjectedLabel]), Owner: metav1.GetControllerOf(pod), Template: s.Template,
		}
		d.events = staleEvents(*d.stale, s.Message, o.namespace, r)
	}
	c, problem := claimOf(pod, o.namespace, o.edge, r)
	if problem != nil {
		d.class, d.isIdle = podInvalid, !o.isKnown
		d.isUnclear = !o.isKnown && c.mode.HasCertificate()
		d.events = append(d.events, events.Warning(c.reference(), string(policy.InvalidOverride), problem.Message))
		return d
	}
	d.class, d.claim, d.isClaiming = podClaiming, c, true
	d.repeatsWarnings = !o.isKnown && now.Sub(c.created) < recentPod
	return d
}

// staleEvents report a stale pod, to it and to its owner, with what to do about it.
// There are none for a pod that was changed by hand: a restart may not help.
func staleEvents(s StalePod, message string, ns policy.Namespace, r rules) []events.Event {
	if s.Template == "" {
		return nil
	}
	note := message + "; restart its workload (kubectl rollout restart)"
	switch asks, _ := policy.WantsRestart(nil, ns); {
	case r.restarts:
		note += fmt.Sprintf(", or have the controller do so: %s: \"true\" on the workload or the namespace", policy.RestartKey)
	case asks:
		note += fmt.Sprintf("; namespace %s asks the controller to do so (%s), which is off: set the chart's value controller.restartStale.enabled", ns.Name, policy.RestartKey)
	default:
		note += fmt.Sprintf(", or have the controller do so: set the chart's value controller.restartStale.enabled, and %s: \"true\" on the workload or the namespace", policy.RestartKey)
	}
	var list []events.Event
	for _, regarding := range podAndOwner(s.Pod, s.UID, s.Owner) {
		list = append(list, events.Warning(regarding, inject.StaleTemplate, note))
	}
	return list
}
