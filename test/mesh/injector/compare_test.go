package injector

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/adopt"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// edgeStack is Edge Stack as its chart renders it without any integration.
func edgeStack() *corev1.Pod {
	return modified(edgePod(), func(p *corev1.Pod) {
		p.Labels = map[string]string{"app.kubernetes.io/name": "edge-stack", "product": "aes"}
		p.Spec.Containers[0].Name, p.Spec.Containers[0].Image = "aes", "docker.io/datawire/aes:3.12.8"
	})
}

// integrateManually integrates the edge's container by annotations, as the vendors describe
// it for Edge Stack and Istio's automatic injection.
func integrateManually(p *corev1.Pod) {
	withAnnotation("proxy.istio.io/config", "proxyMetadata:\n  OUTPUT_CERTS: /etc/istio-certs\n")(p)
	withAnnotation("sidecar.istio.io/userVolumeMount", `[{"name": "istio-certs", "mountPath": "/etc/istio-certs"}]`)(p)
	withAnnotation("traffic.sidecar.istio.io/includeInboundPorts", "")(p)
	withAnnotation("traffic.sidecar.istio.io/includeOutboundIPRanges", "")(p)
	withAnnotation("sidecar.istio.io/inject", "true")(p)
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "istio-certs", VolumeSource: corev1.VolumeSource{
		EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory},
	}})
	edge := &p.Spec.Containers[0]
	edge.VolumeMounts = append(edge.VolumeMounts, corev1.VolumeMount{Name: "istio-certs", MountPath: "/etc/istio-certs/", ReadOnly: true})
	edge.Env = append(edge.Env, corev1.EnvVar{Name: "AMBASSADOR_ISTIO_SECRET_DIR", Value: "/etc/istio-certs"})
}

var istioInjectionEnabled = keyValues{"istio-injection": "enabled"}

// The pod of mode istio matches the pod that the vendors' guide builds by hand, after
// Istio's real injector in both cases. The differences are listed here and in docs/modes.md.
func TestModeIstioMatchesTheVendorsGuide(t *testing.T) {
	manual := newNamespace(t, istioInjectionEnabled, nil)
	want, err := manual.create(modified(edgeStack(), integrateManually))
	require.NoError(t, err)
	require.NoError(t, wantProxies(1)(want))
	ns := newNamespace(t, injectionEnabled.merge(istioInjectionEnabled), keyValues{"isthmus.dev/mode": "istio"})

	got, err := ns.create(modified(edgeStack(), vendorAnnotations))

	require.NoError(t, err)
	assert.Equal(t, map[string]string{
		// Isthmus requests these from Istio; the guide does not.
		"metadata.annotations[proxy.istio.io/config].holdApplicationUntilProxyStarts":       "the edge starts once the certificates exist",
		"metadata.annotations[proxy.istio.io/config].proxyMetadata[ISTIO_META_DNS_CAPTURE]": "DNS of an edge is not captured",
		"metadata.labels[security.istio.io/tlsMode]":                                        "peers must not send mTLS to the edge's ports, which do not terminate it",
		"metadata.labels[sidecar.istio.io/inject]":                                          "makes Istio's injector add the sidecar",
		"spec.volumes[istio-certs].emptyDir.sizeLimit":                                      "a limit, because files in memory count as the pod's memory; certificates take a few KiB",
		"spec.containers[aes].env[AMBASSADOR_ENVOY_BASE_ID]":                                "two Envoys in one pod must not share an ID",
		"spec.containers[aes].volumeMounts[istio-certs].mountPath":                          "the same directory, without the trailing slash: Emissary compares directories as exact strings",
		// These follow from the above in the output of Istio's injector.
		"spec.initContainers[istio-init].env[ISTIO_META_DNS_CAPTURE]":  "Istio's injector gives its init container all of proxyMetadata",
		"spec.initContainers[istio-proxy].env[ISTIO_META_DNS_CAPTURE]": "DNS of an edge is not captured",
		"spec.initContainers[istio-proxy].env[PROXY_CONFIG]":           "the annotation proxy.istio.io/config, as Isthmus merged it",
		// Isthmus records these.
		"metadata.annotations[isthmus.dev/status]":                  "records what Isthmus added, so that it can be reverted",
		"metadata.labels[isthmus.dev/injected]":                     "records what Isthmus added, so that it can be reverted",
		"metadata.annotations[consul.hashicorp.com/connect-inject]": "opts the pod out of Consul's injector, as the vendors' manifests do",
	}, differences(t, want, got))
}

// In mode istio Isthmus leaves a complete integration by hand unchanged, and adds to an
// incomplete one only what it lacks.
func TestModeIstioCompletesAnIntegrationByHand(t *testing.T) {
	manual := newNamespace(t, istioInjectionEnabled, nil)
	want, err := manual.create(modified(edgeStack(), integrateManually))
	require.NoError(t, err)
	ns := newNamespace(t, injectionEnabled.merge(istioInjectionEnabled), keyValues{"isthmus.dev/mode": "istio"})

	got, err := ns.create(modified(edgeStack(), integrateManually))
	require.NoError(t, err)
	assert.Empty(t, differences(t, want, got))
	warned := ns.warnings.Drain()
	require.NotEmpty(t, warned)
	assert.Contains(t, warned[0], "it is prepared for Istio's injector by hand and is complete")

	incomplete := modified(edgeStack(), integrateManually, func(p *corev1.Pod) {
		p.Name = "incomplete"
		delete(p.Annotations, "traffic.sidecar.istio.io/includeInboundPorts")
	})
	got, err = ns.create(incomplete)
	require.NoError(t, err)
	assertNothingCaptured(t, &got.Spec.InitContainers[0])
	assert.Equal(t, "istio", got.Labels["isthmus.dev/injected"])
}

// The output of `isthmus adopt` for the guide's pod becomes the guide's pod again after both
// injectors.
func TestAdoptedPodMatchesTheVendorsGuide(t *testing.T) {
	manual := newNamespace(t, istioInjectionEnabled, nil)
	x := modified(edgeStack(), integrateManually)
	want, err := manual.create(x)
	require.NoError(t, err)
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	ns := newNamespace(t, injectionEnabled.merge(istioInjectionEnabled), nil)
	request := inject.Request{Pod: x, Namespace: policy.Namespace{Name: ns.name, Labels: injectionEnabled.merge(istioInjectionEnabled)}}

	adoption, err := adopt.Adopt(engine, request, adopt.Options{})

	require.NoError(t, err)
	assert.Equal(t, policy.Istio, adoption.Mode)
	got, err := ns.create(patched(t, x, adoption.Patch))
	require.NoError(t, err)
	for field, reason := range differences(t, want, got) {
		assert.NotEmpty(t, reason, field)
	}
}

// differences returns the differences of two stored pods, with their reasons. The names of
// the pod, its namespace and the token's volume always differ, and are ignored.
func differences(t *testing.T, want, got *corev1.Pod) map[string]string {
	t.Helper()
	token := regexp.MustCompile(`kube-api-access-[a-z0-9]{5}`)
	neutral := func(pod *corev1.Pod) *corev1.Pod {
		data, err := json.Marshal(pod)
		require.NoError(t, err)
		text := token.ReplaceAllString(strings.ReplaceAll(string(data), pod.Namespace, "namespace"), "kube-api-access")
		same := &corev1.Pod{}
		require.NoError(t, json.Unmarshal([]byte(text), same))
		same.Name = "front"
		return same
	}
	found := map[string]string{}
	for _, d := range adopt.Compare(neutral(want), neutral(got)) {
		found[d.Field] = d.Reason
		t.Logf("%s: %s -> %s: %s", d.Field, d.Before, d.After, d.Reason)
	}
	return found
}
