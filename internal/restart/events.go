package restart

import (
	corev1 "k8s.io/api/core/v1"
)

// The reasons of Events.
const (
	// EventRestarted: a stale workload that asks for it was restarted.
	EventRestarted = "Restarted"
	// EventCompleted: the restarted workload is rolled out, with pods of the current
	// template.
	EventCompleted = "RestartCompleted"
	// EventPostponed: a stale workload waits until another rollout of it is complete.
	EventPostponed = "RestartPostponed"
	// EventRefused: the workload asks to be restarted, and a restart would not help.
	EventRefused = "RestartRefused"
	// EventStuck: the restarted workload is not rolled out in time, and the others
	// wait for it.
	EventStuck = "RestartStuck"
	// EventFailed: the new pods of the restarted workload are stale again or not
	// injected, and the others wait.
	EventFailed = "RestartFailed"
	// EventReleased: the others no longer wait for the restarted workload.
	EventReleased = "RestartReleased"
)

// reference returns the pod as the object of an Event.
func (p StalePod) reference() corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: p.Pod.Namespace, Name: p.Pod.Name, UID: p.UID}
}

// ownerReference returns the pod's owner as the object of an Event, or the pod
// itself when it has none.
func (p StalePod) ownerReference() corev1.ObjectReference {
	if o := p.Owner; o != nil {
		return corev1.ObjectReference{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: p.Pod.Namespace, Name: o.Name, UID: o.UID}
	}
	return p.reference()
}
