package injector

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// outcome is what the stored pod is judged by.
type outcome struct {
	// before is what the user sent.
	before *corev1.Pod
	// revision is whose settings count, "default" or canary.
	revision string
}

// isEdge says whether the pod is the Emissary, and not the generic proxy.
func (o outcome) isEdge() bool { return o.before.Spec.Containers[0].Name == "ambassador" }

// judges say what DESIGN 4 promises, by mode.
var judges = map[string]func(t *testing.T, o outcome, pod *corev1.Pod){
	"sidecar": judgeSidecar,
	"istio":   judgeIstio,
	"secret":  judgeSecret,
	"ambient": judgeAmbient,
}

// judgeSidecar: our agent, and nothing of Istio's injector.
func judgeSidecar(t *testing.T, o outcome, pod *corev1.Pod) {
	t.Helper()
	judgeMetadata(t, o, pod, keys{
		"isthmus.dev/injected": "sidecar", "sidecar.istio.io/inject": "false", "security.istio.io/tlsMode": "disabled",
	}, keys{
		"sidecar.istio.io/inject": "false", "consul.hashicorp.com/connect-inject": "false",
		"kubectl.kubernetes.io/default-container": o.before.Spec.Containers[0].Name,
	})
	require.Equal(t, []string{"istio-proxy"}, names(pod.Spec.InitContainers))
	proxy := &pod.Spec.InitContainers[0]
	assert.Equal(t, "docker.io/istio/proxyv2:1.30.2", proxy.Image)
	assert.Equal(t, ptr.To(corev1.ContainerRestartPolicyAlways), proxy.RestartPolicy)
	assert.Equal(t, []string{"true"}, values(proxy, "DISABLE_ENVOY"))
	assert.Equal(t, []string{"/etc/istio-certs"}, values(proxy, "OUTPUT_CERTS"))
	assert.Contains(t, values(proxy, "PROXY_CONFIG")[0], discovery(o.revision))
	assert.Equal(t, []string{istiodOf(o.revision)}, values(proxy, "CA_ADDR"))
	assert.Equal(t, []string{"istio-certs", "istiod-ca-cert", "istio-token"}, volumes(pod, "istio-certs", "istiod-ca-cert", "istio-token"))
	judgeCerts(t, o, pod)
	if o.isEdge() {
		assert.Empty(t, values(&pod.Spec.Containers[0], "AMBASSADOR_ENVOY_BASE_ID"), "no Envoy runs beside it")
	}
	judgeProbes(t, o, pod)
}

// judgeIstio: Istio's own sidecar, which writes the certificates and captures
// nothing.
func judgeIstio(t *testing.T, o outcome, pod *corev1.Pod) {
	t.Helper()
	edge := o.before.Spec.Containers[0].Name
	name := o.before.Labels["app.kubernetes.io/name"] + o.before.Labels["app"]
	judgeMetadata(t, o, pod, keys{
		"isthmus.dev/injected": "istio", "sidecar.istio.io/inject": "true", "security.istio.io/tlsMode": "disabled",
		// Istio's own.
		"service.istio.io/canonical-name": name, "service.istio.io/canonical-revision": "latest",
	}, keys{
		"sidecar.istio.io/inject": "true", "consul.hashicorp.com/connect-inject": "false",
		"kubectl.kubernetes.io/default-container":          edge,
		"traffic.sidecar.istio.io/includeInboundPorts":     "",
		"traffic.sidecar.istio.io/includeOutboundIPRanges": "",
		"sidecar.istio.io/userVolumeMount":                 `{"istio-certs":{"mountPath":"/etc/istio-certs"}}`,
		"proxy.istio.io/config":                            "proxyMetadata:\n  OUTPUT_CERTS: \"/etc/istio-certs\"\n  ISTIO_META_DNS_CAPTURE: \"false\"\nholdApplicationUntilProxyStarts: true\n",
		// Istio's own.
		"istio.io/rev": o.revision, "kubectl.kubernetes.io/default-logs-container": edge,
		"prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus",
	})
	assert.Contains(t, pod.Annotations["sidecar.istio.io/status"], `"istio-proxy"`)
	require.Equal(t, []string{"istio-init", "istio-proxy"}, names(pod.Spec.InitContainers))
	judgeCapture(t, &pod.Spec.InitContainers[0])
	proxy := &pod.Spec.InitContainers[1]
	assert.Equal(t, "docker.io/istio/proxyv2:1.30.2", proxy.Image)
	assert.Equal(t, []string{"/etc/istio-certs"}, values(proxy, "OUTPUT_CERTS"))
	assert.Equal(t, []string{"false"}, values(proxy, "ISTIO_META_DNS_CAPTURE"))
	assert.Empty(t, values(proxy, "DISABLE_ENVOY"))
	assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs"}}, mounts(proxy, "istio-certs"))
	assert.Equal(t, []string{istiodOf(o.revision)}, values(proxy, "CA_ADDR"))
	var config map[string]any
	require.NoError(t, json.Unmarshal([]byte(values(proxy, "PROXY_CONFIG")[0]), &config))
	assert.Equal(t, discovery(o.revision), config["discoveryAddress"])
	assert.Equal(t, true, config["holdApplicationUntilProxyStarts"])
	judgeCerts(t, o, pod)
	if o.isEdge() {
		assert.Equal(t, []string{"1"}, values(&pod.Spec.Containers[0], "AMBASSADOR_ENVOY_BASE_ID"))
		// Istio's own: it answers the kubelet's probes for the pod's containers.
		assert.Equal(t, "/app-health/ambassador/livez", pod.Spec.Containers[0].LivenessProbe.HTTPGet.Path)
		assert.Equal(t, "/app-health/ambassador/readyz", pod.Spec.Containers[0].ReadinessProbe.HTTPGet.Path)
	}
}

// judgeSecret: no container; what reads no Secrets of its own accord has it
// mounted.
func judgeSecret(t *testing.T, o outcome, pod *corev1.Pod) {
	t.Helper()
	judgeMetadata(t, o, pod, keys{
		"isthmus.dev/injected": "secret", "sidecar.istio.io/inject": "false", "security.istio.io/tlsMode": "disabled",
	}, keys{"sidecar.istio.io/inject": "false", "consul.hashicorp.com/connect-inject": "false"})
	if o.isEdge() {
		judgeUntouchedSpec(t, o, pod)
		return
	}
	assert.Empty(t, pod.Spec.InitContainers)
	require.Equal(t, []string{"istio-certs"}, volumes(pod, "istio-certs"))
	assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs", ReadOnly: true}}, mounts(&pod.Spec.Containers[0], "istio-certs"))
}

// judgeAmbient: a pod that ztunnel takes care of.
func judgeAmbient(t *testing.T, o outcome, pod *corev1.Pod) {
	t.Helper()
	judgeMetadata(t, o, pod, keys{
		"isthmus.dev/injected": "ambient", "sidecar.istio.io/inject": "false", "istio.io/dataplane-mode": "ambient",
	}, keys{
		"sidecar.istio.io/inject": "false", "consul.hashicorp.com/connect-inject": "false",
		"ambient.istio.io/bypass-inbound-capture": "true",
	})
	judgeUntouchedSpec(t, o, pod)
}

// judgeUntouched: the pod is what a pod is that nobody asked for.
func judgeUntouched(t *testing.T, o outcome, pod *corev1.Pod) {
	t.Helper()
	assert.Equal(t, o.before.Labels, pod.Labels)
	assert.Equal(t, o.before.Annotations, pod.Annotations)
	judgeUntouchedSpec(t, o, pod)
}

// judgeMetadata: these labels and annotations beside the user's, and no more.
func judgeMetadata(t *testing.T, o outcome, pod *corev1.Pod, labels, annotations keys) {
	t.Helper()
	assert.Equal(t, map[string]string(keys(o.before.Labels).with(labels)), pod.Labels)
	got := maps.Clone(pod.Annotations)
	assert.NotEmpty(t, got["isthmus.dev/status"])
	delete(got, "isthmus.dev/status")
	if labels["isthmus.dev/injected"] == "istio" {
		assert.NotEmpty(t, got["sidecar.istio.io/status"])
		delete(got, "sidecar.istio.io/status")
	}
	assert.Equal(t, map[string]string(keys(o.before.Annotations).with(annotations)), got)
}

// judgeCapture: iptables are given nothing to capture.
func judgeCapture(t *testing.T, init *corev1.Container) {
	t.Helper()
	for flag, want := range map[string]string{"-i": "", "-x": "", "-b": "", "-d": "15090,15021,15020"} {
		at := slices.Index(init.Args, flag)
		require.GreaterOrEqual(t, at, 0, "%s in %q", flag, init.Args)
		assert.Equal(t, want, init.Args[at+1], flag)
	}
}

// judgeCerts: one volume in memory, read by the edge where its agent writes.
func judgeCerts(t *testing.T, o outcome, pod *corev1.Pod) {
	t.Helper()
	edge := &pod.Spec.Containers[0]
	require.Equal(t, []string{o.before.Spec.Containers[0].Name}, names(pod.Spec.Containers))
	assert.Equal(t, o.before.Spec.Containers[0].Image, edge.Image)
	require.Len(t, volumes(pod, "istio-certs"), 1)
	for _, v := range pod.Spec.Volumes {
		if v.Name == "istio-certs" {
			assert.Equal(t, &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("1Mi"))}, v.EmptyDir)
		}
	}
	assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs", ReadOnly: true}}, mounts(edge, "istio-certs"))
	if o.isEdge() {
		assert.Equal(t, []string{"/etc/istio-certs"}, values(edge, "AMBASSADOR_ISTIO_SECRET_DIR"))
	} else {
		assert.Empty(t, edge.Env)
	}
}

// judgeUntouchedSpec: no container, volume, variable or mount was added but the
// API server's own token.
func judgeUntouchedSpec(t *testing.T, o outcome, pod *corev1.Pod) {
	t.Helper()
	want, got := o.before.Spec.Containers[0], pod.Spec.Containers[0]
	assert.Empty(t, pod.Spec.InitContainers)
	require.Equal(t, []string{want.Name}, names(pod.Spec.Containers))
	assert.Equal(t, variables(want.Env), variables(got.Env))
	for _, v := range pod.Spec.Volumes {
		assert.True(t, strings.HasPrefix(v.Name, "kube-api-access-"), v.Name)
	}
	for _, m := range got.VolumeMounts {
		assert.True(t, strings.HasPrefix(m.Name, "kube-api-access-"), m.Name)
	}
	judgeProbes(t, o, pod)
}

// judgeProbes: the kubelet asks the edge itself.
func judgeProbes(t *testing.T, o outcome, pod *corev1.Pod) {
	t.Helper()
	if o.isEdge() {
		assert.Equal(t, "/ambassador/v0/check_alive", pod.Spec.Containers[0].LivenessProbe.HTTPGet.Path)
		assert.Equal(t, "/ambassador/v0/check_ready", pod.Spec.Containers[0].ReadinessProbe.HTTPGet.Path)
	}
}

// discovery is where the istiod of a revision is, as the mesh's configuration has
// it.
func discovery(revision string) string {
	if revision == canary {
		return chain.canary.Address
	}
	return chain.Istiod.Address
}

// istiodOf is the CA of a revision, as Istio's template has it.
func istiodOf(revision string) string {
	if revision == canary {
		return "istiod-canary.istio-system.svc:15012"
	}
	return "istiod.istio-system.svc:15012"
}

func names(containers []corev1.Container) []string {
	found := []string{}
	for i := range containers {
		found = append(found, containers[i].Name)
	}
	return found
}

func variables(env []corev1.EnvVar) []string {
	found := []string{}
	for _, e := range env {
		found = append(found, e.Name)
	}
	return found
}

// values are all values of a variable: one that is there twice shows.
func values(c *corev1.Container, name string) []string {
	var found []string
	for _, e := range c.Env {
		if e.Name == name {
			found = append(found, e.Value)
		}
	}
	return found
}

// volumes are the pod's volumes of these names, in the pod's order.
func volumes(pod *corev1.Pod, wanted ...string) []string {
	var found []string
	for _, v := range pod.Spec.Volumes {
		if slices.Contains(wanted, v.Name) {
			found = append(found, v.Name)
		}
	}
	return found
}

// mounts are the container's mounts of a volume.
func mounts(c *corev1.Container, volume string) []corev1.VolumeMount {
	var found []corev1.VolumeMount
	for _, m := range c.VolumeMounts {
		if m.Name == volume {
			found = append(found, m)
		}
	}
	return found
}
