package injector

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Istio's pod has the user's settings of Istio's sidecar as well as those of Isthmus.
func TestUsersSettingsSurviveBothInjectors(t *testing.T) {
	scratch := func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}
	for name, test := range map[string]struct {
		pod change
		// config is the resulting value of the annotation proxy.istio.io/config.
		config string
		mounts string
		env    map[string]string
		// inProxy are mounts of istio-proxy.
		inProxy []corev1.VolumeMount
	}{
		"proxy.istio.io/config in YAML": {
			withAnnotation("proxy.istio.io/config", "# ours\nconcurrency: 2\nproxyMetadata:\n  TEAM: doors\n"),
			"concurrency: 2\nproxyMetadata: {TEAM: doors, OUTPUT_CERTS: /etc/istio-certs, ISTIO_META_DNS_CAPTURE: 'false'}\nholdApplicationUntilProxyStarts: true",
			`{"istio-certs": {"mountPath": "/etc/istio-certs"}}`,
			map[string]string{"TEAM": "doors"}, nil,
		},
		"proxy.istio.io/config in JSON that sets what Isthmus would set": {
			withAnnotation("proxy.istio.io/config", `{"holdApplicationUntilProxyStarts": false, "proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}, "drainDuration": "10s"}`),
			`{"holdApplicationUntilProxyStarts": false, "drainDuration": "10s", "proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true", "OUTPUT_CERTS": "/etc/istio-certs"}}`,
			`{"istio-certs": {"mountPath": "/etc/istio-certs"}}`,
			map[string]string{"ISTIO_META_DNS_CAPTURE": "true"}, nil,
		},
		"userVolumeMount as a map": {
			func(p *corev1.Pod) {
				scratch(p)
				withAnnotation("sidecar.istio.io/userVolumeMount", `{"scratch": {"mountPath": "/scratch", "readOnly": true}}`)(p)
			},
			"{proxyMetadata: {OUTPUT_CERTS: /etc/istio-certs, ISTIO_META_DNS_CAPTURE: 'false'}, holdApplicationUntilProxyStarts: true}",
			`{"scratch": {"mountPath": "/scratch", "readOnly": true}, "istio-certs": {"mountPath": "/etc/istio-certs"}}`,
			nil, []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch", ReadOnly: true}},
		},
		"userVolumeMount as a list": {
			func(p *corev1.Pod) {
				scratch(p)
				withAnnotation("sidecar.istio.io/userVolumeMount", `[{"name": "scratch", "mountPath": "/scratch", "readOnly": true}]`)(p)
			},
			"{proxyMetadata: {OUTPUT_CERTS: /etc/istio-certs, ISTIO_META_DNS_CAPTURE: 'false'}, holdApplicationUntilProxyStarts: true}",
			`[{"name": "scratch", "mountPath": "/scratch", "readOnly": true}, {"name": "istio-certs", "mountPath": "/etc/istio-certs"}]`,
			nil, []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch", ReadOnly: true}},
		},
		"another directory": {
			func(p *corev1.Pod) {
				withAnnotation("proxy.istio.io/config", "proxyMetadata: {OUTPUT_CERTS: /certs}")(p)
				withAnnotation("sidecar.istio.io/userVolumeMount", `[{"name": "istio-certs", "mountPath": "/certs"}]`)(p)
			},
			"{proxyMetadata: {OUTPUT_CERTS: /certs, ISTIO_META_DNS_CAPTURE: 'false'}, holdApplicationUntilProxyStarts: true}",
			`[{"name": "istio-certs", "mountPath": "/certs"}]`,
			map[string]string{"OUTPUT_CERTS": "/certs"}, []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/certs"}},
		},
		"a lifetime": {
			withAnnotation("isthmus.dev/cert-ttl", "1h"),
			"{proxyMetadata: {OUTPUT_CERTS: /etc/istio-certs, ISTIO_META_DNS_CAPTURE: 'false', SECRET_TTL: 1h0m0s}, holdApplicationUntilProxyStarts: true}",
			`{"istio-certs": {"mountPath": "/etc/istio-certs"}}`,
			map[string]string{"SECRET_TTL": "1h0m0s"}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t, injectionEnabled.merge(keyValues{"istio-injection": "enabled"}), keyValues{"isthmus.dev/mode": "istio"})
			reviewCounts := countReviews(t)

			pod, err := ns.create(modified(edgePod(), vendorAnnotations, test.pod))

			require.NoError(t, err)
			assert.Empty(t, ns.warnings.Drain())
			assert.Equal(t, expectedReviews("default"), reviewCounts())
			assert.YAMLEq(t, test.config, pod.Annotations["proxy.istio.io/config"])
			assert.JSONEq(t, test.mounts, pod.Annotations["sidecar.istio.io/userVolumeMount"])
			require.Equal(t, []string{"istio-init", "istio-proxy"}, containerNames(pod.Spec.InitContainers))
			assertNothingCaptured(t, &pod.Spec.InitContainers[0])
			proxy := &pod.Spec.InitContainers[1]
			for name, value := range test.env {
				assert.Equal(t, []string{value}, envValues(proxy, name))
			}
			dir := envValues(proxy, "OUTPUT_CERTS")
			require.Len(t, dir, 1)
			assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: dir[0]}}, volumeMounts(proxy, "istio-certs"))
			assert.Equal(t, []corev1.VolumeMount{{Name: "istio-certs", MountPath: dir[0], ReadOnly: true}}, volumeMounts(&pod.Spec.Containers[0], "istio-certs"))
			for _, mount := range test.inProxy {
				assert.Equal(t, []corev1.VolumeMount{mount}, volumeMounts(proxy, mount.Name))
			}
			assertConfigured(t, proxy, test.config)
		})
	}
}

// assertConfigured checks that Istio's sidecar gets everything that the annotation says.
func assertConfigured(t *testing.T, proxy *corev1.Container, annotation string) {
	t.Helper()
	var want, got map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(annotation), &want))
	require.NoError(t, json.Unmarshal([]byte(envValues(proxy, "PROXY_CONFIG")[0]), &got))
	for key, value := range want {
		assert.Equal(t, value, got[key], key)
	}
}
