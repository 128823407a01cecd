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

// expectation is what a stored pod is compared with.
type expectation struct {
	// submitted is the pod that the user sent.
	submitted *corev1.Pod
	// revision is the revision whose settings apply, "default" or canary.
	revision string
}

// isEdge reports whether the pod is Emissary, and not the generic proxy.
func (e expectation) isEdge() bool { return e.submitted.Spec.Containers[0].Name == "ambassador" }

// assertByMode checks, by mode, what docs/modes.md promises.
var assertByMode = map[string]func(t *testing.T, o expectation, pod *corev1.Pod){
	"sidecar": assertSidecar,
	"istio":   assertIstio,
	"secret":  assertSecret,
	"ambient": assertAmbient,
}

// assertSidecar checks that the pod has the agent of Isthmus, and nothing of Istio's
// injector.
func assertSidecar(t *testing.T, o expectation, pod *corev1.Pod) {
	t.Helper()
	assertMetadata(t, o, pod, keyValues{
		"isthmus.dev/injected": "sidecar", "sidecar.istio.io/inject": "false", "security.istio.io/tlsMode": "disabled",
	}, keyValues{
		"sidecar.istio.io/inject": "false", "consul.hashicorp.com/connect-inject": "false",
		"kubectl.kubernetes.io/default-container": o.submitted.Spec.Containers[0].Name,
	})
	require.Equal(t, []string{"istio-proxy"}, containerNames(pod.Spec.InitContainers))
	proxy := &pod.Spec.InitContainers[0]
	assert.Equal(t, "docker.io/istio/proxyv2:1.30.2", proxy.Image)
	assert.Equal(t, ptr.To(corev1.ContainerRestartPolicyAlways), proxy.RestartPolicy)
	assert.Equal(t, []string{"true"}, envValues(proxy, "DISABLE_ENVOY"))
	assert.Equal(t, []string{"/etc/istio-certs"}, envValues(proxy, "OUTPUT_CERTS"))
	assert.Contains(t, envValues(proxy, "PROXY_CONFIG")[0], discoveryAddress(o.revision))
	assert.Equal(t, []string{caAddress(o.revision)}, envValues(proxy, "CA_ADDR"))
	assert.Equal(t, []string{"istio-certs", "istiod-ca-cert", "istio-token"}, volumeNames(pod, "istio-certs", "istiod-ca-cert", "istio-token"))
	assertCertificates(t, o, pod)
	if o.isEdge() {
		assert.Empty(t, envValues(&pod.Spec.Containers[0], "AMBASSADOR_ENVOY_BASE_ID"), "no Envoy runs beside it")
	}
	assertProbesUnchanged(t, o, pod)
}

// assertIstio checks that the pod has Istio's own sidecar, which writes the certificates and
// captures no traffic.
func assertIstio(t *testing.T, o expectation, pod *corev1.Pod) {
	t.Helper()
	edge := o.submitted.Spec.Containers[0].Name
	name := o.submitted.Labels["app.kubernetes.io/name"] + o.submitted.Labels["app"]
	assertMetadata(t, o, pod, keyValues{
		"isthmus.dev/injected": "istio", "sidecar.istio.io/inject": "true", "security.istio.io/tlsMode": "disabled",
		// Istio adds these.
		"service.istio.io/canonical-name": name, "service.istio.io/canonical-revision": "latest",
	}, keyValues{
		"sidecar.istio.io/inject": "true", "consul.hashicorp.com/connect-inject": "false",
		"kubectl.kubernetes.io/default-container":          edge,
		"traffic.sidecar.istio.io/includeInboundPorts":     "",
		"traffic.sidecar.istio.io/includeOutboundIPRanges": "",
		"sidecar.istio.io/userVolumeMount":                 `{"istio-certs":{"mountPath":"/etc/istio-certs"}}`,
		"proxy.istio.io/config":                            "proxyMetadata:\n  OUTPUT_CERTS: \"/etc/istio-certs\"\n  ISTIO_META_DNS_CAPTURE: \"false\"\nholdApplicationUntilProxyStarts: true\n",
		// Istio adds these.
		"istio.io/rev": o.revision, "kubectl.kubernetes.io/default-logs-container": edge,
		"prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus",
	})
	assert.Contains(t, pod.Annotations["sidecar.istio.io/status"], `"istio-proxy"`)
	require.Equal(t, []string{"istio-init", "istio-proxy"}, containerNames(pod.Spec.InitContainers))
	assertNothingCaptured(t, &pod.Spec.InitContainers[0])
	proxy := &pod.Spec.InitContainers[1]
	assert.Equal(t, "docker.io/istio/proxyv2:1.30.2", proxy.Image)
	assert.Equal(t, []string{"/etc/istio-certs"}, envValues(proxy, "OUTPUT_CERTS"))
	assert.Equal(t, []string{"false"}, envValues(proxy, "ISTIO_META_DNS_CAPTURE"))
	assert.Empty(t, envValues(proxy, "DISABLE_ENVOY"))
	assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs"}}, volumeMounts(proxy, "istio-certs"))
	assert.Equal(t, []string{caAddress(o.revision)}, envValues(proxy, "CA_ADDR"))
	var config map[string]any
	require.NoError(t, json.Unmarshal([]byte(envValues(proxy, "PROXY_CONFIG")[0]), &config))
	assert.Equal(t, discoveryAddress(o.revision), config["discoveryAddress"])
	assert.Equal(t, true, config["holdApplicationUntilProxyStarts"])
	assertCertificates(t, o, pod)
	if o.isEdge() {
		assert.Equal(t, []string{"1"}, envValues(&pod.Spec.Containers[0], "AMBASSADOR_ENVOY_BASE_ID"))
		// Istio adds these: its agent answers the kubelet's probes for the containers of the
		// pod.
		assert.Equal(t, "/app-health/ambassador/livez", pod.Spec.Containers[0].LivenessProbe.HTTPGet.Path)
		assert.Equal(t, "/app-health/ambassador/readyz", pod.Spec.Containers[0].ReadinessProbe.HTTPGet.Path)
	}
}

// assertSecret checks that no container was added, and that an edge which does not read
// Secrets itself has the Secret mounted.
func assertSecret(t *testing.T, o expectation, pod *corev1.Pod) {
	t.Helper()
	assertMetadata(t, o, pod, keyValues{
		"isthmus.dev/injected": "secret", "sidecar.istio.io/inject": "false", "security.istio.io/tlsMode": "disabled",
	}, keyValues{"sidecar.istio.io/inject": "false", "consul.hashicorp.com/connect-inject": "false"})
	if o.isEdge() {
		assertUnchangedSpec(t, o, pod)
		return
	}
	assert.Empty(t, pod.Spec.InitContainers)
	require.Equal(t, []string{"istio-certs"}, volumeNames(pod, "istio-certs"))
	assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs", ReadOnly: true}}, volumeMounts(&pod.Spec.Containers[0], "istio-certs"))
}

// assertAmbient checks that ztunnel handles the pod.
func assertAmbient(t *testing.T, o expectation, pod *corev1.Pod) {
	t.Helper()
	assertMetadata(t, o, pod, keyValues{
		"isthmus.dev/injected": "ambient", "sidecar.istio.io/inject": "false", "istio.io/dataplane-mode": "ambient",
	}, keyValues{
		"sidecar.istio.io/inject": "false", "consul.hashicorp.com/connect-inject": "false",
		"ambient.istio.io/bypass-inbound-capture": "true",
	})
	assertUnchangedSpec(t, o, pod)
}

// assertUnchanged checks that the pod is stored as it was submitted.
func assertUnchanged(t *testing.T, o expectation, pod *corev1.Pod) {
	t.Helper()
	assert.Equal(t, o.submitted.Labels, pod.Labels)
	assert.Equal(t, o.submitted.Annotations, pod.Annotations)
	assertUnchangedSpec(t, o, pod)
}

// assertMetadata checks that exactly these labels and annotations were added to the user's.
func assertMetadata(t *testing.T, o expectation, pod *corev1.Pod, labels, annotations keyValues) {
	t.Helper()
	assert.Equal(t, map[string]string(keyValues(o.submitted.Labels).merge(labels)), pod.Labels)
	got := maps.Clone(pod.Annotations)
	assert.NotEmpty(t, got["isthmus.dev/status"])
	delete(got, "isthmus.dev/status")
	if labels["isthmus.dev/injected"] == "istio" {
		assert.NotEmpty(t, got["sidecar.istio.io/status"])
		delete(got, "sidecar.istio.io/status")
	}
	assert.Equal(t, map[string]string(keyValues(o.submitted.Annotations).merge(annotations)), got)
}

// assertNothingCaptured checks that iptables get nothing to capture.
func assertNothingCaptured(t *testing.T, init *corev1.Container) {
	t.Helper()
	for flag, want := range map[string]string{"-i": "", "-x": "", "-b": "", "-d": "15090,15021,15020"} {
		at := slices.Index(init.Args, flag)
		require.GreaterOrEqual(t, at, 0, "%s in %q", flag, init.Args)
		assert.Equal(t, want, init.Args[at+1], flag)
	}
}

// assertCertificates checks that there is one volume in memory, and that the edge reads
// where its agent writes.
func assertCertificates(t *testing.T, o expectation, pod *corev1.Pod) {
	t.Helper()
	edge := &pod.Spec.Containers[0]
	require.Equal(t, []string{o.submitted.Spec.Containers[0].Name}, containerNames(pod.Spec.Containers))
	assert.Equal(t, o.submitted.Spec.Containers[0].Image, edge.Image)
	require.Len(t, volumeNames(pod, "istio-certs"), 1)
	for _, v := range pod.Spec.Volumes {
		if v.Name == "istio-certs" {
			assert.Equal(t, &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("1Mi"))}, v.EmptyDir)
		}
	}
	assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs", ReadOnly: true}}, volumeMounts(edge, "istio-certs"))
	if o.isEdge() {
		assert.Equal(t, []string{"/etc/istio-certs"}, envValues(edge, "AMBASSADOR_ISTIO_SECRET_DIR"))
	} else {
		assert.Empty(t, edge.Env)
	}
}

// assertUnchangedSpec checks that no container, volume, variable or mount was added except
// for the API server's own token.
func assertUnchangedSpec(t *testing.T, o expectation, pod *corev1.Pod) {
	t.Helper()
	want, got := o.submitted.Spec.Containers[0], pod.Spec.Containers[0]
	assert.Empty(t, pod.Spec.InitContainers)
	require.Equal(t, []string{want.Name}, containerNames(pod.Spec.Containers))
	assert.Equal(t, envNames(want.Env), envNames(got.Env))
	for _, v := range pod.Spec.Volumes {
		assert.True(t, strings.HasPrefix(v.Name, "kube-api-access-"), v.Name)
	}
	for _, m := range got.VolumeMounts {
		assert.True(t, strings.HasPrefix(m.Name, "kube-api-access-"), m.Name)
	}
	assertProbesUnchanged(t, o, pod)
}

// assertProbesUnchanged checks that the kubelet probes the edge itself.
func assertProbesUnchanged(t *testing.T, o expectation, pod *corev1.Pod) {
	t.Helper()
	if o.isEdge() {
		assert.Equal(t, "/ambassador/v0/check_alive", pod.Spec.Containers[0].LivenessProbe.HTTPGet.Path)
		assert.Equal(t, "/ambassador/v0/check_ready", pod.Spec.Containers[0].ReadinessProbe.HTTPGet.Path)
	}
}

// discoveryAddress returns the address of the istiod of a revision, as in the mesh's
// configuration.
func discoveryAddress(revision string) string {
	if revision == canary {
		return env.canary.Address
	}
	return env.Istiod.Address
}

// caAddress returns the address of the CA of a revision, as in Istio's template.
func caAddress(revision string) string {
	if revision == canary {
		return "istiod-canary.istio-system.svc:15012"
	}
	return "istiod.istio-system.svc:15012"
}

func containerNames(containers []corev1.Container) []string {
	found := []string{}
	for i := range containers {
		found = append(found, containers[i].Name)
	}
	return found
}

func envNames(env []corev1.EnvVar) []string {
	found := []string{}
	for _, e := range env {
		found = append(found, e.Name)
	}
	return found
}

// envValues returns all values of a variable, so that a duplicate shows.
func envValues(c *corev1.Container, name string) []string {
	var found []string
	for _, e := range c.Env {
		if e.Name == name {
			found = append(found, e.Value)
		}
	}
	return found
}

// volumeNames returns those of the wanted volumes that the pod has, in the pod's order.
func volumeNames(pod *corev1.Pod, wanted ...string) []string {
	var found []string
	for _, v := range pod.Spec.Volumes {
		if slices.Contains(wanted, v.Name) {
			found = append(found, v.Name)
		}
	}
	return found
}

// volumeMounts returns the container's mounts of a volume.
func volumeMounts(c *corev1.Container, volume string) []corev1.VolumeMount {
	var found []corev1.VolumeMount
	for _, m := range c.VolumeMounts {
		if m.Name == volume {
			found = append(found, m)
		}
	}
	return found
}
