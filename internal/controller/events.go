package controller

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The reasons of Events, in addition to the reason codes and the codes of warnings.
const (
	// EventIssued: a source delivered a certificate.
	EventIssued = "Issued"
	// EventPublished: a bundle was written into the Secret.
	EventPublished = "Published"
	// EventRejected: what a source delivered, or what the Secret contains, is not a
	// valid bundle for the edge.
	EventRejected = "Rejected"
	// EventRootChanged: the mesh's roots changed, and the Secret is updated.
	EventRootChanged = "RootChanged"
	// EventConflict: the Secret, the TLSContext or the RoleBinding is not managed by
	// Isthmus, or the Secret holds another identity.
	EventConflict = "Conflict"
	// EventClaimIgnored: what a pod, or the namespace, needs cannot be resolved, as when
	// the revision of Istio that it names is gone.
	EventClaimIgnored = "ClaimIgnored"
	// EventPublisherSilent: no publisher in a pod wrote the Secret in time, so the
	// controller requests a certificate.
	EventPublisherSilent = "PublisherSilent"
	// EventLifetimeChanged: certificates do not live as long as an annotation asks for.
	EventLifetimeChanged = "LifetimeChanged"
	// EventLeftBehind: what a former source of the Secret created cannot be removed.
	EventLeftBehind = "LeftBehind"
	// EventContextClash: Emissary would confuse two TLSContexts of one name.
	EventContextClash = "TLSContextClash"
	// EventNotAddressed: the TLSContext of the namespace is not for this edge.
	EventNotAddressed = "TLSContextNotForEdge"
	// EventIDUnknown: the pod does not tell the AMBASSADOR_ID of its edge.
	EventIDUnknown = "AmbassadorIDUnknown"
	// EventFailed: a request to a source or to the API server failed.
	EventFailed = "Failed"
)

func podReference(pod types.NamespacedName, uid types.UID) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: uid}
}

func secretReference(namespace, name string) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Secret", Namespace: namespace, Name: name}
}

// podAndOwner returns a pod and its owner, if it has one, as the objects of Events.
func podAndOwner(pod types.NamespacedName, uid types.UID, owner *metav1.OwnerReference) []corev1.ObjectReference {
	list := []corev1.ObjectReference{podReference(pod, uid)}
	if owner != nil {
		list = append(list, corev1.ObjectReference{APIVersion: owner.APIVersion, Kind: owner.Kind, Namespace: pod.Namespace, Name: owner.Name, UID: owner.UID})
	}
	return list
}
