package admission

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const emissaryImage = "docker.io/emissaryingress/emissary:4.1.0"

// edgePod returns an edge that Pod Security "restricted" admits.
func edgePod(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	pod := restrictedPod(name, emissaryImage, changes...)
	return pod
}

// otherPod returns a pod that no profile recognises.
func otherPod(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	return restrictedPod(name, "docker.io/library/redis:8", changes...)
}

func restrictedPod(name, image string, changes ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   ptr.To(true),
				RunAsUser:      ptr.To[int64](8888),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "main", Image: image,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: ptr.To(false),
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
	for _, change := range changes {
		change(pod)
	}
	return pod
}

// annotated sets an annotation of the pod.
func annotated(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { metav1.SetMetaDataAnnotation(&p.ObjectMeta, key, value) }
}

// labelled sets a label of the pod.
func labelled(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { metav1.SetMetaDataLabel(&p.ObjectMeta, key, value) }
}

// optIn opts the pod in by its annotation.
func optIn(p *corev1.Pod) { annotated("isthmus.dev/inject", "true")(p) }

func isInjected(pod *corev1.Pod) bool { return sidecars(pod) > 0 }

// sidecars counts the containers named istio-proxy, including init containers.
func sidecars(pod *corev1.Pod) int {
	count := 0
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == "istio-proxy" {
			count++
		}
	}
	return count
}

// sidecar returns the injected container, or nil.
func sidecar(pod *corev1.Pod) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == "istio-proxy" {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}

// variable returns the value of an environment variable.
func variable(c *corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}
