package controller

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// claim is what one edge pod, or the annotation of its namespace, needs.
type claim struct {
	// pod and uid are empty for the claim of a namespace's annotation.
	pod types.NamespacedName
	uid types.UID
	// mode is the mode that the pod was injected in.
	mode           policy.Mode
	owner          *metav1.OwnerReference
	created        time.Time
	serviceAccount string
	options        policy.Options
	// id is the variable AMBASSADOR_ID of the edge.
	id inject.Variable
	// seesAll is true when the edge sees the objects of all namespaces.
	seesAll bool
	// secret are facts about the edge: none while the edge is not recognised.
	secret patches.SecretFacts
}

// reference returns the pod as the object of an Event.
func (c claim) reference() corev1.ObjectReference {
	return podReference(c.pod, c.uid)
}

// claimOf reads a pod. Its service account comes from the pod itself, which the
// API server has checked; nothing is taken from Isthmus' own annotations, which its
// author may have written.
//
// edge is nil when no single edge is recognised in the pod.
func claimOf(pod *corev1.Pod, ns policy.Namespace, edge *inject.Edge, r rules) (claim, *policy.Problem) {
	options, problem := policy.Resolve(pod.Labels, pod.Annotations, ns, r.defaults, r.names)
	c := claim{
		pod: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, uid: pod.UID, mode: knownMode(pod.Labels[policy.InjectedLabel]),
		created: pod.CreationTimestamp.Time, serviceAccount: pod.Spec.ServiceAccountName,
		owner: metav1.GetControllerOf(pod), options: options,
	}
	if c.serviceAccount == "" {
		c.serviceAccount = "default"
	}
	if edge != nil {
		container := &pod.Spec.Containers[edge.Container]
		single := edge.Secret.Selectors.SingleNamespace
		c.secret = edge.Secret
		c.id = inject.ReadVariable(pod, ns.Name, container, ambassadorIDVariable)
		c.seesAll = single == "" || inject.ReadVariable(pod, ns.Name, container, single).Value == ""
	}
	return c, problem
}

// knownMode returns the mode in a label; empty when the label's value is not a mode.
func knownMode(label string) policy.Mode {
	if m := policy.Mode(label); m.Known() {
		return m
	}
	return ""
}

// groupBySecret groups claims by the Secret they need, and sorts each group by
// precedence: the namespace's annotation, then the oldest pod. A pod in mode ambient
// needs no Secret.
func groupBySecret(claims []claim) map[string][]claim {
	groups := map[string][]claim{}
	for _, c := range claims {
		if !c.mode.HasCertificate() {
			continue
		}
		groups[c.options.SecretName] = append(groups[c.options.SecretName], c)
	}
	for _, g := range groups {
		slices.SortFunc(g, func(a, b claim) int {
			return cmp.Or(
				cmp.Compare(precedence(a), precedence(b)),
				a.created.Compare(b.created),
				cmp.Compare(a.serviceAccount+"/"+a.pod.Name, b.serviceAccount+"/"+b.pod.Name),
			)
		})
	}
	return groups
}

// precedence is 0 for a namespace's annotation, which comes before every pod.
func precedence(c claim) int {
	if c.uid == "" {
		return 0
	}
	return 1
}

// sourceOf returns the source of a Secret from the claims of the service account that
// it serves. It is agent when any of the pods has the publisher, so that the controller
// and a pod do not both renew the Secret.
func sourceOf(claims []claim) policy.Source {
	for _, c := range claims {
		if c.options.Source == policy.Agent {
			return policy.Agent
		}
	}
	return claims[0].options.Source
}
