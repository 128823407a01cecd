package inject_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	yamlv3 "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// words are the names and values of fuzzed pods, so that they contain what the engine looks
// for.
var words = []string{
	"", "true", "false", "sidecar", "secret", "files", "emissary", "aes", "generic", "istio-proxy", "istio-certs", "istio-token", "istio-envoy",
	"/etc/istio-certs", "/etc/istio-certs/", "/etc", "/certs", "90m", "100m", "128Mi", "15020", "15025",
	"emissaryingress/emissary:4.1.0", "datawire/aes:1.13.4", "quay.io/datawire/ambassador", "istio/proxyv2:1.8.2",
	"AMBASSADOR_NAMESPACE", "AMBASSADOR_ENVOY_BASE_ID", "AMBASSADOR_ISTIO_SECRET_DIR", "OUTPUT_CERTS", "agent", "entrypoint",
	"/ambassador/v0/check_ready", "ambient", "disabled", "kube-api-access", "corp", "isthmus-publish", "isthmus-publish-token", "agent", "mirror", "istio",
	`{"istio-certs":{"mountPath":"/certs"}}`, `[{"name":"extra","mountPath":"/extra"}]`, "null", "{", "concurrency: 2\n", "proxyMetadata: {A: b}", "proxyMetadata:\n", `{"proxyMetadata":{"OUTPUT_CERTS":"/certs"}}`,
}

var keys = []string{
	"app", policy.InjectKey, policy.ModeKey, policy.DeliveryKey, policy.ProfileKey, policy.CertDirKey, policy.EnvoyKey, policy.CertTTLKey,
	policy.ContainerKey, policy.SecretNameKey, policy.PublishKey, policy.StatusKey, policy.InjectedLabel, policy.SourceKey, policy.IstioInjectKey, policy.IstioTLSModeLabel,
	policy.IstioDataplaneLabel, policy.IstioProxyImageKey, policy.IstioProxyCPUKey, policy.IstioProxyMemLimitKey, policy.IstioStatusPortKey,
	policy.IstioProxyConfigKey, policy.IstioUserVolumeMount, policy.IstioUserVolumeKey, policy.IstioTemplatesKey, policy.IstioStatusKey, policy.IstioInboundPortsKey, policy.AmbientInboundKey,
	policy.ConsulInjectKey, policy.DefaultContainerKey, "isthmus.dev/mdoe", "a~b/c",
}

// FuzzInject checks for every pod that the engine answers, and that an injection happens
// once, only adds, and is reverted exactly.
func FuzzInject(f *testing.F) {
	for _, seed := range []string{"", "isthmus", "0123456789012345678901234567890123456789012345678901234567890123456789"} {
		for _, where := range []uint8{0, 8, 16, 8 + 32, 2 + 16, 1, 64, 128} {
			f.Add([]byte(seed), where)
		}
	}
	settings := inject.Settings{ImagePullSecrets: []string{"corp"}, PublisherImage: "corp/isthmus:1"}
	afterIstio := newEngine(f, inject.Options{Settings: settings, Injector: func(string) (inject.Injector, error) {
		return inject.Injector{Configuration: "a-istio", RunsFirst: true, Reinvoked: true}, nil
	}})
	beforeIstio := newEngine(f, inject.Options{Settings: settings})
	f.Fuzz(func(t *testing.T, data []byte, where uint8) {
		engine := beforeIstio
		if len(data)%2 == 1 {
			engine = afterIstio
		}
		pod := decode(t, encode(t, randomPod(data)))
		ns := policy.Namespace{Name: "edge", Labels: map[string]string{}}
		if where&1 == 0 {
			ns.Labels[policy.InjectionLabel] = policy.InjectionEnabled
		}
		if where&2 != 0 {
			ns.Labels[policy.IstioDataplaneLabel] = "ambient"
			ns.Annotations = map[string]string{policy.OpenShiftUIDRangeKey: "1/2", policy.CertDirKey: "/namespace"}
		}
		annotateNamespace := func(key, value string) {
			if ns.Annotations == nil {
				ns.Annotations = map[string]string{}
			}
			ns.Annotations[key] = value
		}
		if where&8 != 0 {
			annotateNamespace(policy.ModeKey, "secret")
		}
		if where&64 != 0 {
			annotateNamespace(policy.ModeKey, "istio")
			ns.Labels[policy.IstioInjectionLabel] = "enabled"
		}
		if where&128 != 0 {
			annotateNamespace(policy.ModeKey, "ambient")
		}
		if where&16 != 0 {
			annotateNamespace(policy.PublishKey, "true")
		}
		if where&32 != 0 && pod.Annotations[policy.ProfileKey] == "" {
			pod = pod.DeepCopy()
			if pod.Annotations == nil {
				pod.Annotations = map[string]string{}
			}
			pod.Annotations[policy.ProfileKey] = "generic"
			pod.Annotations[policy.ContainerKey] = "edge"
		}
		before := encode(t, pod)
		result := engine.Inject(inject.Request{Pod: pod, Namespace: ns, Template: where&4 != 0})
		require.Equal(t, string(before), string(encode(t, pod)), "the pod must not be written")
		require.NotEmpty(t, result.Reason)
		if result.Denied {
			require.NotEmpty(t, result.Message)
		}
		if result.Reason != policy.Injected {
			require.Empty(t, result.Patch)
			return
		}
		checkInjected(t, engine, pod, ns, result)
	})
}

// FuzzProxyConfig checks that the content of the annotation is preserved.
func FuzzProxyConfig(f *testing.F) {
	for _, seed := range []string{"", "null", "{}", "a: [", ownConfig, `{"proxyMetadata":{"A":"b"},"holdApplicationUntilProxyStarts":false}`, "proxyMetadata: &a {A: b}\nother: *a\n", "a: 1\na: 2\n", "---\na: 1\n---\nb: 2\n", "? [a]\n: b\n", "<<: {a: b}\n", "{0}"} {
		f.Add(seed)
	}
	engine := newEngine(f, inject.Options{})
	f.Fuzz(func(t *testing.T, text string) {
		pod := annotated(policy.ModeKey, "istio", policy.IstioProxyConfigKey, text)
		result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
		if result.Reason != policy.Injected {
			require.Empty(t, result.Patch)
			return
		}
		var before, after map[string]any
		var doc yamlv3.Node
		require.NoError(t, yamlv3.Unmarshal([]byte(text), &doc))
		if yaml.Unmarshal([]byte(text), &before) != nil || !hasNames(&doc) {
			return // keys that JSON does not know, or knows by one name
		}
		merged := decode(t, apply(t, encode(t, pod), result)).Annotations[policy.IstioProxyConfigKey]
		require.NoError(t, yaml.Unmarshal([]byte(merged), &after), merged)
		if before["proxyMetadata"] == nil {
			delete(before, "proxyMetadata")
		}
		assertAdditive(t, "", asAny(before), asAny(after))
	})
}

func hasNames(n *yamlv3.Node) bool {
	for i, c := range n.Content {
		if n.Kind == yamlv3.MappingNode && i%2 == 0 && c.Tag != "!!str" || !hasNames(c) {
			return false
		}
	}
	return true
}

func asAny(m map[string]any) any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

// randomPod builds a pod from the fuzzer's bytes: usually an edge, with everything else that
// the engine reads.
func randomPod(data []byte) *corev1.Pod {
	filler := randfill.NewFromGoFuzz(data).NilChance(0.4).NumElements(0, 3).Funcs(
		func(s *string, c randfill.Continue) { *s = words[c.Intn(len(words))] },
		func(m *map[string]string, c randfill.Continue) {
			if c.Bool() {
				return
			}
			*m = map[string]string{}
			for range c.Intn(4) {
				(*m)[keys[c.Intn(len(keys))]] = words[c.Intn(len(words))]
			}
		},
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewQuantity(int64(c.Intn(9)), resource.DecimalSI)
		},
		func(s *intstr.IntOrString, c randfill.Continue) { *s = intstr.FromInt32(int32(c.Intn(16000))) },
		func(n *int32, c randfill.Continue) { *n = []int32{0, 80, 15020, 15025}[c.Intn(4)] },
		func(_ *metav1.ManagedFieldsEntry, _ randfill.Continue) {},
		func(_ *metav1.Time, _ randfill.Continue) {},
		func(s *corev1.VolumeSource, c randfill.Continue) {
			switch c.Intn(5) {
			case 0:
				s.EmptyDir = &corev1.EmptyDirVolumeSource{}
			case 1:
				s.Secret = &corev1.SecretVolumeSource{SecretName: "x"}
			case 2:
				s.PersistentVolumeClaim = &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "x"}
			case 3: // which the API server refuses, after the webhooks
			default:
				s.ConfigMap = &corev1.ConfigMapVolumeSource{}
			}
		},
		func(l *corev1.ResourceList, c randfill.Continue) {
			if c.Bool() {
				*l = corev1.ResourceList{corev1.ResourceCPU: *resource.NewQuantity(1, resource.DecimalSI), corev1.ResourceMemory: *resource.NewQuantity(1<<27, resource.BinarySI)}
			}
		},
		func(_ *corev1.Affinity, _ randfill.Continue) {},
		func(_ *corev1.PodStatus, _ randfill.Continue) {},
		func(_ *corev1.EphemeralContainer, _ randfill.Continue) {},
	)
	pod := &corev1.Pod{}
	filler.Fill(&pod.Labels)
	filler.Fill(&pod.Annotations)
	filler.Fill(&pod.Spec.Containers)
	filler.Fill(&pod.Spec.InitContainers)
	filler.Fill(&pod.Spec.Volumes)
	filler.Fill(&pod.Spec.ImagePullSecrets)
	filler.Fill(&pod.Spec.Resources)
	filler.Fill(&pod.Spec.HostNetwork)
	if pod.Spec.HostNetwork {
		pod.Spec.DNSPolicy = corev1.DNSClusterFirstWithHostNet
	}
	edge := corev1.Container{Name: "edge", Image: "emissaryingress/emissary:3.9.1"}
	filler.Fill(&edge.Env)
	filler.Fill(&edge.VolumeMounts)
	pod.Spec.Containers = append(pod.Spec.Containers, edge)
	return pod
}
