package controller

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// stale is a pod that was injected with another template than the current one.
type stale struct {
	pod   types.NamespacedName
	uid   types.UID
	mode  policy.Mode
	owner *metav1.OwnerReference
	// template is the hash of the current one; empty where the pod was changed by
	// hand so that it cannot be said, and then nothing is restarted for it.
	template string
}

// staleness judges an injected pod: nil where it is as it would be injected today,
// else the warning's text beside.
func staleness(pod *corev1.Pod, result inject.Result) (*stale, string) {
	s := &stale{
		pod: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, uid: pod.UID,
		mode: known(pod.Labels[policy.InjectedLabel]), owner: metav1.GetControllerOf(pod),
	}
	if result.Reason != policy.AlreadyInjected {
		return s, result.Message
	}
	for _, w := range result.Warnings {
		if w.Code == inject.StaleTemplate {
			s.template = result.Template
			return s, w.Text
		}
	}
	return nil, ""
}

// mark tells of a stale pod, to it and to its owner, and what to do about it.
func (r *reconciler) mark(ns policy.Namespace, p *place, s stale, text string) {
	if s.template == "" {
		return // it is not what the webhook made, and a restart is no promise
	}
	note := text + "; restart its workload (kubectl rollout restart)"
	switch asks, _ := policy.WantsRestart(nil, ns); {
	case r.restarts != nil:
		note += fmt.Sprintf(", or have the controller do so: %s: \"true\" on the workload or the namespace", policy.RestartKey)
	case asks:
		note += fmt.Sprintf("; namespace %s asks the controller to, with %s, and it may not: set the chart's value controller.restartStale.enabled", ns.Name, policy.RestartKey)
	default:
		note += fmt.Sprintf(", or have the controller do so: set the chart's value controller.restartStale.enabled, and %s: \"true\" on the workload or the namespace", policy.RestartKey)
	}
	r.tell(p, &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: s.pod.Namespace, Name: s.pod.Name, UID: s.uid}, corev1.EventTypeWarning, inject.StaleTemplate, note)
	if o := s.owner; o != nil {
		r.tell(p, &corev1.ObjectReference{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: s.pod.Namespace, Name: o.Name, UID: o.UID}, corev1.EventTypeWarning, inject.StaleTemplate, note)
	}
}
