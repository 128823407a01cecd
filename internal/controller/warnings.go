package controller

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// repeatWarnings records the webhook's warnings about a pod as Events: the warnings
// about a Deployment's pods went to a ReplicaSet's controller, which drops them.
func (r *reconciler) repeatWarnings(ns policy.Namespace, s *namespaceState, pod *corev1.Pod, c claim) {
	for _, w := range warningsOf(r.Engine, ns, pod) {
		for _, regarding := range podAndOwner(c.pod, c.uid, c.owner) {
			s.events.Record(events.Warning(regarding, w.Code, w.Text))
		}
	}
}
