package adopt_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/isthmus-mesh/isthmus/internal/adopt"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// TestCompareMeaning shows that another form of the same content is no difference.
func TestCompareMeaning(t *testing.T) {
	a := &corev1.Pod{}
	a.Annotations = map[string]string{
		"proxy.istio.io/config":            "proxyMetadata:\n  A: b\ntracing: {}\n",
		"sidecar.istio.io/userVolumeMount": `[{"name": "x", "mountPath": "/x"}]`,
	}
	a.Spec.Containers = []corev1.Container{
		{Name: "edge", Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "x"}}}},
			Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1")}}},
		{Name: "istio-proxy", Args: []string{"proxy", "sidecar", "--domain", "x", "--log_as_json", "--concurrency=2"}, VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-abcde", MountPath: "/t"}}},
	}
	a.Spec.Volumes = []corev1.Volume{
		{Name: "kube-api-access-abcde"},
		{Name: "c", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
	}
	b := a.DeepCopy()
	b.Annotations = map[string]string{
		"proxy.istio.io/config":            `{"tracing": {}, "proxyMetadata": {"A": "b"}}`,
		"sidecar.istio.io/userVolumeMount": `{"x": {"mountPath": "/x"}}`,
	}
	edge, proxy := &b.Spec.Containers[0], &b.Spec.Containers[1]
	edge.Env[0], edge.Env[1] = edge.Env[1], edge.Env[0]
	edge.Env[0].ValueFrom = &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "x"}}
	edge.Resources.Limits["cpu"] = resource.MustParse("1000m")
	edge.TerminationMessagePath, edge.TerminationMessagePolicy = corev1.TerminationMessagePathDefault, corev1.TerminationMessageReadFile
	proxy.Args = []string{"proxy", "sidecar", "--concurrency", "2", "--domain=x", "--log_as_json"}
	proxy.VolumeMounts[0].Name, b.Spec.Volumes[0].Name = "kube-api-access-fghij", "kube-api-access-fghij"
	mode := corev1.ConfigMapVolumeSourceDefaultMode
	b.Spec.Volumes[1].ConfigMap.DefaultMode = &mode
	b.Spec.Volumes[0], b.Spec.Volumes[1] = b.Spec.Volumes[1], b.Spec.Volumes[0]
	assert.Empty(t, adopt.Compare(a, b))
	assert.Empty(t, adopt.Compare(&corev1.Pod{}, &corev1.Pod{}))
}

// compared returns a pod that is integrated by hand, and the pod that Isthmus injects after its
// adoption.
func compared(t testing.TB, name string) (before, after *corev1.Pod) {
	t.Helper()
	engine := newEngine(t, inject.Options{})
	before = sample(t, name)
	request := inject.Request{Pod: before, Namespace: labelled("edge"), Template: true}
	adoption, err := adopt.Adopt(engine, request, adopt.Options{})
	require.NoError(t, err)
	request.Pod = patchPod(t, before, adoption.Patch)
	result := engine.Inject(request)
	require.NotEmpty(t, result.Patch)
	return before, patchPod(t, request.Pod, result.Patch)
}

// TestCompareExplainsNothingElse shows that a difference that Isthmus does not cause has no reason.
func TestCompareExplainsNothingElse(t *testing.T) {
	for name, test := range map[string]struct {
		sample string
		change func(*corev1.Pod)
		want   adopt.Difference
	}{
		"the edge's image":  {"sidecar", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "x" }, adopt.Difference{Field: "spec.containers[emissary-ingress].image", Before: `"docker.io/emissaryingress/emissary:3.9.1"`, After: `"x"`}},
		"a variable goes":   {"sidecar", func(p *corev1.Pod) { p.Spec.Containers[0].Env = p.Spec.Containers[0].Env[1:] }, adopt.Difference{Field: "spec.containers[emissary-ingress].env[AMBASSADOR_NAMESPACE]", Before: `{"valueFrom":{"fieldRef":{"fieldPath":"metadata.namespace"}}}`}},
		"a variable comes":  {"sidecar", func(p *corev1.Pod) { setEnv(&p.Spec.Containers[0], "X", "") }, adopt.Difference{Field: "spec.containers[emissary-ingress].env[X]", After: `""`}},
		"another directory": {"sidecar", func(p *corev1.Pod) { setEnv(&p.Spec.Containers[0], "AMBASSADOR_ISTIO_SECRET_DIR", "/x") }, adopt.Difference{Field: "spec.containers[emissary-ingress].env[AMBASSADOR_ISTIO_SECRET_DIR]", Before: `"/etc/istio-certs"`, After: `"/x"`}},
		"another mount":     {"sidecar", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[1].MountPath = "/x" }, adopt.Difference{Field: "spec.containers[emissary-ingress].volumeMounts[istio-certs].mountPath", Before: `"/etc/istio-certs/"`, After: `"/x"`}},
		"no mount":          {"sidecar", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = p.Spec.Containers[0].VolumeMounts[:1] }, adopt.Difference{Field: "spec.containers[emissary-ingress].volumeMounts[istio-certs]", Before: `{"mountPath":"/etc/istio-certs/"}`}},
		"a volume goes":     {"sidecar", func(p *corev1.Pod) { p.Spec.Volumes = p.Spec.Volumes[1:] }, adopt.Difference{Field: "spec.volumes[pod-info]", Before: `{"downwardAPI":{"items":{"0":{"fieldRef":{"fieldPath":"metadata.labels"},"path":"labels"}}}}`}},
		"the account":       {"sidecar", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }, adopt.Difference{Field: "spec.serviceAccountName", Before: `"emissary-ingress"`}},
		"the user":          {"sidecar", func(p *corev1.Pod) { p.Spec.SecurityContext = nil }, adopt.Difference{Field: "spec.securityContext", Before: `{"runAsUser":8888}`}},
		"a label":           {"sidecar", func(p *corev1.Pod) { p.Labels["x"] = "y" }, adopt.Difference{Field: "metadata.labels[x]", After: `"y"`}},
		"a key goes":        {"sidecar", func(p *corev1.Pod) { delete(p.Annotations, "consul.hashicorp.com/connect-inject") }, adopt.Difference{Field: "metadata.annotations[consul.hashicorp.com/connect-inject]", Before: `"false"`}},
		"no sidecar": {"sidecar", func(p *corev1.Pod) {
			p.Spec.InitContainers = nil
			setEnv(&p.Spec.Containers[0], "AMBASSADOR_ENVOY_BASE_ID", "1")
		}, adopt.Difference{Field: "spec.containers[istio-proxy]"}},
		"another container":   {"sidecar", func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "x"}) }, adopt.Difference{Field: "spec.containers[x]", After: `{"resources":{}}`}},
		"the sidecar's stdin": {"sidecar", func(p *corev1.Pod) { p.Spec.InitContainers[0].Stdin = true }, adopt.Difference{Field: "spec.initContainers[istio-proxy].stdin", After: "true"}},
		"the sidecar's flag":  {"sidecar", func(p *corev1.Pod) { p.Spec.InitContainers[0].Args = append(p.Spec.InitContainers[0].Args, "--new=1") }, adopt.Difference{Field: "spec.initContainers[istio-proxy].args[--new]", After: `"1"`}},
		"traffic is captured": {"annotations", func(p *corev1.Pod) { p.Annotations["traffic.sidecar.istio.io/includeInboundPorts"] = "*" }, adopt.Difference{Field: "metadata.annotations[traffic.sidecar.istio.io/includeInboundPorts]", Before: `""`, After: `"*"`}},
		"the mesh's own words": {"annotations", func(p *corev1.Pod) {
			p.Annotations["proxy.istio.io/config"] = "proxyMetadata:\n  OUTPUT_CERTS: /etc/edge-certs\n  ISTIO_META_DNS_CAPTURE: 'false'\n"
		}, adopt.Difference{Field: "metadata.annotations[proxy.istio.io/config].tracing", Before: `{"sampling":10}`}},
		"a mount of others": {"annotations", func(p *corev1.Pod) {
			p.Annotations["sidecar.istio.io/userVolumeMount"] = `{"istio-certs": {"mountPath": "/etc/edge-certs"}}`
		}, adopt.Difference{Field: "metadata.annotations[sidecar.istio.io/userVolumeMount][wasm]", Before: `{"mountPath":"/var/wasm"}`}},
		"an ID, with an Envoy": {"annotations", func(p *corev1.Pod) { p.Spec.Containers[0].Env = p.Spec.Containers[0].Env[:3] }, adopt.Difference{Field: "spec.containers[aes].env[AMBASSADOR_ENVOY_BASE_ID]", Before: `"1"`}},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := compared(t, test.sample)
			for _, d := range adopt.Compare(before, after) {
				require.NotEmpty(t, d.Reason, d.Field)
			}
			test.change(after)
			found := false
			for _, d := range adopt.Compare(before, after) {
				if d.Field != test.want.Field {
					assert.NotEmpty(t, d.Reason, d.Field)
					continue
				}
				found = true
				if test.want.Before+test.want.After == "" {
					d.Before = ""
				}
				assert.Equal(t, test.want, d)
			}
			assert.True(t, found, "no difference in %s", test.want.Field)
		})
	}
}

// TestCompareWithEnvoy shows that no reason claims that no Envoy runs if one does.
func TestCompareWithEnvoy(t *testing.T) {
	engine := newEngine(t, inject.Options{})
	pod := sample(t, "sidecar")
	pod.Annotations["isthmus.dev/envoy"] = "true"
	request := inject.Request{Pod: pod, Namespace: labelled("edge"), Template: true}
	adoption, err := adopt.Adopt(engine, request, adopt.Options{})
	require.NoError(t, err)
	checkAdopted(t, engine, request, adoption)
	for _, d := range adoption.Differences {
		assert.NotContains(t, d.Reason, "no Envoy", d.Field)
	}
	edge := patchPod(t, pod, adoption.Patch).Spec.Containers[0]
	assert.Contains(t, edge.Env, corev1.EnvVar{Name: "AMBASSADOR_ENVOY_BASE_ID", Value: "1"}, "two Envoys are in the pod, as before")
}

// TestCompareIsStable shows that the order of differences is fixed.
func TestCompareIsStable(t *testing.T) {
	before, after := compared(t, "sidecar")
	first := adopt.Compare(before, after)
	assert.Greater(t, len(first), 30)
	for range 20 {
		require.Equal(t, first, adopt.Compare(before, after))
	}
}
