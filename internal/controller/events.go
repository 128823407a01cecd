package controller

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of Events beside the reason codes and the codes of warnings.
const (
	// EventIssued: a source delivered a certificate.
	EventIssued = "Issued"
	// EventPublished: a bundle was written into the Secret.
	EventPublished = "Published"
	// EventRejected: what a source delivered, or what stands in the Secret, is no
	// bundle that may be there.
	EventRejected = "Rejected"
	// EventRootChanged: the mesh's roots changed, and the Secret follows.
	EventRootChanged = "RootChanged"
	// EventConflict: the Secret, the TLSContext or the RoleBinding is someone
	// else's, or holds another identity.
	EventConflict = "Conflict"
	// EventFailed: a source or the API server did not do what was asked.
	EventFailed = "Failed"

	// EventRestarted: a stale workload that asked for it was restarted.
	EventRestarted = "Restarted"
	// EventRestartCompleted: it is rolled out, with pods of the current template.
	EventRestartCompleted = "RestartCompleted"
	// EventRestartPostponed: a stale workload waits for a rollout of its own.
	EventRestartPostponed = "RestartPostponed"
	// EventRestartRefused: it asks, and a restart would not do what it is for.
	EventRestartRefused = "RestartRefused"
	// EventRestartStuck: it is not rolled out in time, and the others wait for it.
	EventRestartStuck = "RestartStuck"
	// EventRestartInVain: its new pods are stale again or not injected, and the
	// others wait.
	EventRestartInVain = "RestartInVain"
	// EventRestartReleased: the others need not wait for it any longer.
	EventRestartReleased = "RestartReleased"
)

// about makes the reference of an Event to an object.
func about(o metav1.Object) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID()}
}

func aboutSecret(namespace, name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Secret", Namespace: namespace, Name: name}
}

// subjects are a pod and its owner.
func subjects(pod metav1.Object, c claim) []*corev1.ObjectReference {
	list := []*corev1.ObjectReference{about(pod)}
	if c.owner != nil {
		list = append(list, &corev1.ObjectReference{
			APIVersion: c.owner.APIVersion, Kind: c.owner.Kind, Namespace: pod.GetNamespace(), Name: c.owner.Name, UID: c.owner.UID,
		})
	}
	return list
}

// maxNote is the longest note that the events API takes.
const maxNote = 1024

// tell makes an Event and a line in the log, unless the last ones for this object
// and reason said the same.
func (r *reconciler) tell(p *place, regarding *corev1.ObjectReference, kind, reason, note string) {
	key := regarding.Kind + "/" + regarding.Name + "/" + reason
	if p.said[key] == note {
		return
	}
	if p.said == nil {
		p.said = map[string]string{}
	}
	p.said[key] = note
	r.say(regarding, kind, reason, note)
}

// say makes an Event and a line in the log.
func (r *reconciler) say(regarding *corev1.ObjectReference, kind, reason, note string) {
	if len(note) > maxNote {
		note = note[:maxNote-3] + "..."
	}
	r.log.Info("said", "kind", regarding.Kind, "namespace", regarding.Namespace, "name", regarding.Name, "type", kind, "reason", reason, "note", note)
	r.events.record(regarding, kind, reason, note)
}

// calm forgets what was told, so that the same trouble is told again when it
// comes back.
func (p *place) calm(regarding *corev1.ObjectReference, reasons ...string) {
	for _, reason := range reasons {
		delete(p.said, regarding.Kind+"/"+regarding.Name+"/"+reason)
	}
}
