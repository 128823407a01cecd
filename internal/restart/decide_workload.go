package restart

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The kinds of workloads that can be restarted.
const (
	deployment  = "Deployment"
	statefulSet = "StatefulSet"
	daemonSet   = "DaemonSet"
)

// replicaSet is the kind between a Deployment and its pods.
const replicaSet = "ReplicaSet"

// appsVersion is the API version of these kinds and of ReplicaSets.
var appsVersion = appsv1.SchemeGroupVersion.String()

// workloadOfOwner names the workload behind a pod's controller, or the ReplicaSet that
// has to be read first: see workloadOfReplicaSet. The kind is empty when the pod belongs
// to no workload that can be restarted; unsupported then says why.
func workloadOfOwner(owner *metav1.OwnerReference) (kind, name, unsupported string) {
	switch {
	case owner == nil:
		return "", "", "the pod has no controller that would recreate it; delete and recreate it yourself"
	case owner.APIVersion == appsVersion && (owner.Kind == statefulSet || owner.Kind == daemonSet || owner.Kind == replicaSet):
		return owner.Kind, owner.Name, ""
	}
	return "", "", fmt.Sprintf("its owner is the %s %s, and only the pods of a Deployment, StatefulSet or DaemonSet can be rolled", owner.Kind, owner.Name)
}

// workloadOfReplicaSet names the workload behind a ReplicaSet with this controller, as
// workloadOfOwner does.
func workloadOfReplicaSet(name string, owner *metav1.OwnerReference) (kind, workloadName, unsupported string) {
	switch {
	case owner == nil:
		return "", "", fmt.Sprintf("its ReplicaSet %s belongs to no Deployment; delete the pods one by one", name)
	case owner.APIVersion == appsVersion && owner.Kind == deployment:
		return deployment, owner.Name, ""
	}
	return "", "", fmt.Sprintf("its ReplicaSet belongs to the %s %s (%s), which has its own way to restart", owner.Kind, owner.Name, owner.APIVersion)
}
