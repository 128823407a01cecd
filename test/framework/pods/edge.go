package pods

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Edge returns a pod that does nothing and that every namespace allows. It matches no
// profile but names the generic one, so it is injected if its namespace or another
// annotation opts it in.
func Edge(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: name + "-", Labels: map[string]string{"app": name},
			Annotations: map[string]string{policy.ProfileKey: "generic"},
		},
		Spec: corev1.PodSpec{
			Containers:                    []corev1.Container{{Name: "edge", Image: "registry.k8s.io/pause:3.10"}},
			TerminationGracePeriodSeconds: ptr.To[int64](1),
		},
	}
}

// Deployment returns a Deployment of pods like this one. Its name is the pod's label "app".
func Deployment(pod *corev1.Pod, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Labels["app"]},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(replicas), Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec},
		},
	}
}
