package inject_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestCacheKeepsPodsApart shows that an engine never gives a cached patch to a pod that
// needs another one.
func TestCacheKeepsPodsApart(t *testing.T) {
	change := func(edit func(*corev1.Pod)) *corev1.Pod {
		pod := edge()
		pod.Annotations = map[string]string{policy.EnvoyKey: "true"}
		edit(pod)
		return pod
	}
	emptyDir := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}
	pods := map[string]*corev1.Pod{
		"plain": change(func(*corev1.Pod) {}),
		"base id set": change(func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AMBASSADOR_ENVOY_BASE_ID", Value: "4"}}
		}),
		"other env": change(func(p *corev1.Pod) { p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A"}} }),
		"mounts": change(func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "a", MountPath: "/a"}}
		}),
		"labels":       change(func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }),
		"label inject": change(func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioInjectKey: "false"} }),
		"annotated":    change(func(p *corev1.Pod) { p.Annotations[policy.ConsulInjectKey] = "false" }),
		"no envoy":     change(func(p *corev1.Pod) { p.Annotations = nil }),
		"delivery":     change(func(p *corev1.Pod) { p.Annotations[policy.DeliveryKey] = "secret" }),
		"cert-dir":     change(func(p *corev1.Pod) { p.Annotations[policy.CertDirKey] = "/certs" }),
		"second": change(func(p *corev1.Pod) {
			p.Spec.Containers = append([]corev1.Container{{Name: "first"}}, p.Spec.Containers...)
		}),
		"renamed":       change(func(p *corev1.Pod) { p.Spec.Containers[0].Name = "gateway" }),
		"other profile": change(func(p *corev1.Pod) { p.Spec.Containers[0].Image = "datawire/aes:3.9.1" }),
		"warned":        change(func(p *corev1.Pod) { p.Spec.Containers[0].Image = "emissaryingress/emissary:3.9.1" }),
		"volumes":       change(func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "a", VolumeSource: emptyDir}} }),
		"own volume":    change(func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "istio-certs", VolumeSource: emptyDir}} }),
		"own mount": change(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "istio-certs", VolumeSource: emptyDir}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs"}}
		}),
		"own volume, other mount": change(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "istio-certs", VolumeSource: emptyDir}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "a", MountPath: "/a"}}
		}),
		"default container": change(func(p *corev1.Pod) { p.Annotations[policy.DefaultContainerKey] = "x" }),
		"default container, renamed": change(func(p *corev1.Pod) {
			p.Annotations[policy.DefaultContainerKey] = "x"
			p.Spec.Containers[0].Name = "gateway"
		}),
		"generic": change(func(p *corev1.Pod) { p.Annotations[policy.ProfileKey] = "generic" }),
		"generic, delivery": change(func(p *corev1.Pod) {
			p.Annotations[policy.ProfileKey] = "generic"
			p.Annotations[policy.DeliveryKey] = "secret"
		}),
		"publish": change(func(p *corev1.Pod) { p.Annotations[policy.PublishKey] = "true" }),
		"publish, secret name": change(func(p *corev1.Pod) {
			p.Annotations[policy.PublishKey], p.Annotations[policy.SecretNameKey] = "true", "b"
		}),
		"secret": change(func(p *corev1.Pod) { p.Annotations = map[string]string{policy.ModeKey: "secret"} }),
		"secret, other name": change(func(p *corev1.Pod) {
			p.Annotations = map[string]string{policy.ModeKey: "secret", policy.SecretNameKey: "b"}
		}),
		"secret, generic": change(func(p *corev1.Pod) {
			p.Annotations = map[string]string{policy.ModeKey: "secret", policy.ProfileKey: "generic"}
		}),
		"secret, generic, other name": change(func(p *corev1.Pod) {
			p.Annotations = map[string]string{policy.ModeKey: "secret", policy.ProfileKey: "generic", policy.SecretNameKey: "b"}
		}),
		"secret, generic, other place": change(func(p *corev1.Pod) {
			p.Annotations = map[string]string{policy.ModeKey: "secret", policy.ProfileKey: "generic", policy.CertDirKey: "/certs"}
		}),
		"init":         change(func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "init"}} }),
		"pull secret":  change(func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "corp"}} }),
		"pull secrets": change(func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "a"}} }),
	}
	options := inject.Options{Settings: inject.Settings{
		ImagePullSecrets: []string{"corp"}, SecretNames: []string{"istio-certs", "b"}, PublisherImage: "corp/isthmus:1",
	}}
	patchOf := func(e *inject.Engine, pod *corev1.Pod) string {
		r := e.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
		assert.Equal(t, policy.Injected, r.Reason, r.Message)
		assert.JSONEq(t, string(encode(t, r.Patch)), string(r.EncodedPatch))
		return string(r.EncodedPatch)
	}
	fresh := map[string]string{}
	for name, pod := range pods {
		fresh[name] = patchOf(newEngine(t, options), pod)
	}
	shared := newEngine(t, options)
	for range 2 {
		for name, pod := range pods {
			assert.Equal(t, fresh[name], patchOf(shared, pod), name)
		}
	}
}
