package injector

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// change edits a pod before it is created.
type change func(*corev1.Pod)

// edgePod is Emissary as in its manifests, adapted to Pod Security "restricted".
func edgePod() *corev1.Pod {
	return restrictedPod(corev1.Container{
		Name: "ambassador", Image: "docker.io/emissaryingress/emissary:4.1.0",
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "https", ContainerPort: 8443}, {Name: "admin", ContainerPort: 8877}},
		LivenessProbe: &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ambassador/v0/check_alive", Port: intstr.FromString("admin")}},
		},
		ReadinessProbe: &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ambassador/v0/check_ready", Port: intstr.FromString("admin")}},
		},
		Env: []corev1.EnvVar{{Name: "AMBASSADOR_NAMESPACE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}},
	}, withLabel("app.kubernetes.io/name", "emissary-ingress"))
}

// genericPod is a proxy that only the profile generic accepts, which the pod names.
func genericPod() *corev1.Pod {
	return restrictedPod(corev1.Container{Name: "proxy", Image: "registry.example/team/door:7"},
		withAnnotation("isthmus.dev/profile", "generic"), withLabel("app", "door"))
}

// otherPod is a workload that no profile recognises.
func otherPod() *corev1.Pod {
	return restrictedPod(corev1.Container{Name: "main", Image: "docker.io/library/redis:8"}, withLabel("app", "redis"))
}

func restrictedPod(container corev1.Container, changes ...change) *corev1.Pod {
	container.SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr.To(false),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	return modified(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "front"},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](8888),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{container},
		},
	}, changes...)
}

func modified(pod *corev1.Pod, changes ...change) *corev1.Pod {
	for _, change := range changes {
		change(pod)
	}
	return pod
}

func withAnnotation(key, value string) change {
	return func(p *corev1.Pod) { metav1.SetMetaDataAnnotation(&p.ObjectMeta, key, value) }
}

func withLabel(key, value string) change {
	return func(p *corev1.Pod) { metav1.SetMetaDataLabel(&p.ObjectMeta, key, value) }
}

// vendorAnnotations adds the annotations of Emissary's and Ambassador's charts.
func vendorAnnotations(p *corev1.Pod) {
	withAnnotation("sidecar.istio.io/inject", "false")(p)
	withAnnotation("consul.hashicorp.com/connect-inject", "false")(p)
}

// optIn requests an injection by an annotation of the pod.
func optIn(p *corev1.Pod) { withAnnotation("isthmus.dev/inject", "true")(p) }
