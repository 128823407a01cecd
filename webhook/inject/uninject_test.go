package inject_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func injected(t *testing.T) *corev1.Pod {
	t.Helper()
	pod := edge()
	pod.Labels = map[string]string{"app": "edge"}
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	require.Equal(t, policy.Injected, result.Reason)
	return decode(t, apply(t, encode(t, pod), result))
}

// TestUninjectLivePod shows that what the API server and its plugins add to a pod, also to the
// containers of Isthmus, is no change and is not removed.
func TestUninjectLivePod(t *testing.T) {
	pod := injected(t)
	token := corev1.VolumeMount{Name: "kube-api-access-x", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}
	for _, c := range []*corev1.Container{&pod.Spec.InitContainers[0], &pod.Spec.Containers[0]} {
		c.VolumeMounts = append(c.VolumeMounts, token)
		c.TerminationMessagePath = "/dev/termination-log"
		c.ImagePullPolicy = corev1.PullIfNotPresent
		c.Env = append(c.Env, corev1.EnvVar{Name: "HTTP_PROXY", Value: "http://proxy:3128"})
	}
	pod.Spec.InitContainers[0].SecurityContext.ProcMount = ptr.To(corev1.DefaultProcMount)
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "kube-api-access-x"})

	ops, err := inject.Uninject(pod)
	require.NoError(t, err)
	reverted := decode(t, applyOps(t, encode(t, pod), ops))
	assert.Empty(t, reverted.Spec.InitContainers)
	assert.Equal(t, []corev1.Volume{{Name: "kube-api-access-x"}}, reverted.Spec.Volumes)
	assert.Equal(t, []corev1.VolumeMount{token}, reverted.Spec.Containers[0].VolumeMounts)
	assert.Equal(t, []corev1.EnvVar{{Name: "HTTP_PROXY", Value: "http://proxy:3128"}}, reverted.Spec.Containers[0].Env)
	assert.Equal(t, map[string]string{"app": "edge"}, reverted.Labels)
	assert.Empty(t, reverted.Annotations)
}

func TestUninjectRefusesWhatWasChanged(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"image":          {func(p *corev1.Pod) { p.Spec.InitContainers[0].Image = "mirror/proxyv2:1" }, "spec.initContainers[0].image: container istio-proxy was changed since it was injected"},
		"args":           {func(p *corev1.Pod) { p.Spec.InitContainers[0].Args[0] = "x" }, "spec.initContainers[0].args: container istio-proxy was changed"},
		"env":            {func(p *corev1.Pod) { p.Spec.InitContainers[0].Env[0].Value = "/x" }, "spec.initContainers[0].env: container istio-proxy was changed"},
		"env shortened":  {func(p *corev1.Pod) { p.Spec.InitContainers[0].Env = p.Spec.InitContainers[0].Env[:3] }, "spec.initContainers[0].env: container istio-proxy was changed"},
		"security":       {func(p *corev1.Pod) { p.Spec.InitContainers[0].SecurityContext.RunAsUser = ptr.To(int64(0)) }, "spec.initContainers[0].securityContext: container istio-proxy was changed"},
		"restart policy": {func(p *corev1.Pod) { p.Spec.InitContainers[0].RestartPolicy = nil }, "spec.initContainers[0].restartPolicy: container istio-proxy was changed"},
		"sidecar gone":   {func(p *corev1.Pod) { p.Spec.InitContainers = nil }, "spec.initContainers: istio-proxy is gone"},
		"volume":         {func(p *corev1.Pod) { p.Spec.Volumes[0].EmptyDir.Medium = "" }, "spec.volumes[0]: volume istio-certs was changed since it was injected"},
		"volume gone":    {func(p *corev1.Pod) { p.Spec.Volumes = p.Spec.Volumes[1:] }, "spec.volumes: istio-certs is gone"},
		"edge's env":     {func(p *corev1.Pod) { p.Spec.Containers[0].Env[0].Value = "/x" }, `spec.containers[0].env[0]: AMBASSADOR_ISTIO_SECRET_DIR is "/x" and was "/etc/istio-certs" when it was injected`},
		"edge's mount":   {func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = nil }, "spec.containers[0].volumeMounts: the mount of istio-certs at /etc/istio-certs is gone"},
		"edge gone":      {func(p *corev1.Pod) { p.Spec.Containers[0].Name = "other" }, "spec.containers: the edge container emissary is gone"},
		"label":          {func(p *corev1.Pod) { p.Labels[policy.IstioTLSModeLabel] = "istio" }, `metadata.labels: security.istio.io/tlsMode is "istio" and was "disabled" when it was injected`},
		"annotation":     {func(p *corev1.Pod) { delete(p.Annotations, policy.IstioInjectKey) }, "metadata.annotations: sidecar.istio.io/inject is gone"},
		"status":         {func(p *corev1.Pod) { p.Annotations[policy.StatusKey] = `{"schema":2}` }, "annotation isthmus.dev/status has schema 2; this version of Isthmus knows 1"},
		"status unknown": {func(p *corev1.Pod) { p.Annotations[policy.StatusKey] = `{"schema":1,"x":1}` }, `annotation isthmus.dev/status is not one that Isthmus wrote: it names no edge container`},
		"status of a newer version": {func(p *corev1.Pod) {
			p.Annotations[policy.StatusKey] = strings.Replace(p.Annotations[policy.StatusKey], `"version":"dev"`, `"version":"v9.0.0","note":"x"`, 1)
		}, `annotation isthmus.dev/status was written by version "v9.0.0" of Isthmus, and this version does not know all of it: json: unknown field "note"; use that version`},
	} {
		t.Run(name, func(t *testing.T) {
			pod := injected(t)
			c.change(pod)
			ops, err := inject.Uninject(pod)
			assert.ErrorContains(t, err, c.want)
			assert.Empty(t, ops)
		})
	}
}

func TestUninjectPlainPod(t *testing.T) {
	ops, err := inject.Uninject(edge())
	require.NoError(t, err)
	assert.Empty(t, ops)
}
