package inject_test

import (
	"encoding/json"
	"slices"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/corpus"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// corpusFolder is a folder of real workloads beside the repository. A clone of the repository
// does not have it.
const corpusFolder = "../../../shared/corpus"

func TestCorpus(t *testing.T) {
	rows := corpus.Rows(t, corpusFolder, "TestGolden, TestRefused and TestIntegratedByHand")

	engine := newEngine(t, inject.Options{})
	for _, row := range rows {
		t.Run(row.File, func(t *testing.T) {
			pod := row.Pod(t)
			result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge"), Template: true})
			assert.False(t, result.Denied, result.Message)
			switch row.Expected {
			case "inject":
				require.Equal(t, policy.Injected, result.Reason, result.Message)
				assert.Equal(t, row.Edge, result.Profile)
				checkInjected(t, engine, pod, labelled("edge"), result)
			case "skip":
				assert.Equal(t, policy.NoProfile, result.Reason, result.Message)
				assert.Empty(t, result.Patch)
				assert.Empty(t, result.Warnings)
			case "conflict":
				assert.Contains(t, []policy.Reason{policy.ManualIntegration, policy.Conflict}, result.Reason)
				assert.Empty(t, result.Patch)
				assert.NotEmpty(t, result.Warnings)
			default:
				t.Fatalf("unknown expectation %q", row.Expected)
			}
		})
	}
}

// TestCorpusByAnnotation shows that the annotations of a namespace change what is added to
// an edge, and never which pods are edges.
func TestCorpusByAnnotation(t *testing.T) {
	rows := corpus.Rows(t, corpusFolder, "TestGolden")

	for name, annotations := range map[string]map[string]string{
		"mode secret":                {policy.ModeKey: "secret"},
		"publish":                    {policy.PublishKey: "true"},
		"publish, with an Envoy":     {policy.SourceKey: "agent", policy.EnvoyKey: "true"},
		"mode istio":                 {policy.ModeKey: "istio"},
		"mode ambient":               {policy.ModeKey: "ambient"},
		"mode secret, read as files": {policy.ModeKey: "secret", policy.ProfileKey: "reader"},
	} {
		t.Run(name, func(t *testing.T) {
			ns, profiles := labelled("edge"), (*patches.Profiles)(nil)
			ns.Annotations = annotations
			if annotations[policy.ProfileKey] != "" {
				profiles = &patches.Profiles{}
				require.NoError(t, profiles.Add("reader.yaml", []byte(readerProfile)))
			}
			engine := newEngine(t, inject.Options{Settings: withPublisher.Settings, Profiles: profiles})
			injected := 0
			for _, row := range rows {
				pod := row.Pod(t)
				result := engine.Inject(inject.Request{Pod: pod, Namespace: ns, Template: true})
				assert.False(t, result.Denied, row.File)
				if row.Expected == "inject" && profiles == nil && !isRefused(pod, annotations[policy.ModeKey]) {
					require.Equal(t, policy.Injected, result.Reason, "%s: %s", row.File, result.Message)
				}
				if row.Expected == "skip" && profiles == nil {
					assert.Equal(t, policy.NoProfile, result.Reason, "%s: %s", row.File, result.Message)
				}
				if result.Reason != policy.Injected {
					assert.Empty(t, result.Patch, row.File)
					continue
				}
				injected++
				if row.Expected == "conflict" && result.Mode != policy.Istio { // with the agent that there is none of
					assert.Equal(t, policy.Secret, result.Mode, row.File)
					assert.True(t, pod.Spec.HostNetwork, row.File)
				}
				checkInjected(t, engine, pod, ns, result)
			}
			assert.Greater(t, injected, 40)
		})
	}
}

// readerProfile is a profile of an edge that reads files in every mode.
const readerProfile = `name: reader
description: The edges of the corpus, as if they read files alone.
match: [{images: [emissary, emissary-ingress, aes, ambassador]}]
env: [{name: CERTS, value: "${certDir}/cert-chain.pem", when: files}]
`

// checkInjected asserts what holds for every injected pod: a second injection changes
// nothing, Uninject restores the pod exactly, and nothing of the user's is changed.
func checkInjected(t *testing.T, engine *inject.Engine, pod *corev1.Pod, ns policy.Namespace, result inject.Result) {
	t.Helper()
	before := encode(t, pod)
	after := apply(t, before, result)

	second := engine.Inject(inject.Request{Pod: decode(t, after), Namespace: ns})
	assert.Equal(t, policy.AlreadyInjected, second.Reason, second.Message)
	assert.Empty(t, second.Patch)
	assert.NotContains(t, codes(second), "stale-template")

	back, err := inject.Uninject(decode(t, after))
	require.NoError(t, err)
	assert.JSONEq(t, string(before), string(applyOps(t, after, back)))

	assertAdditive(t, "", jsonValue(t, encode(t, unmerged(pod, result.Mode))), jsonValue(t, after))
}

// unmerged removes from a pod the annotations that mode istio changes, and the label that
// Istio's injector may have set. Other tests cover them.
func unmerged(pod *corev1.Pod, mode policy.Mode) *corev1.Pod {
	pod = pod.DeepCopy()
	if mode == policy.Istio {
		for _, key := range []string{policy.IstioInjectKey, policy.IstioProxyConfigKey, policy.IstioUserVolumeMount} {
			delete(pod.Annotations, key)
		}
		delete(pod.Labels, policy.IstioTLSModeLabel)
	}
	return pod
}

// isRefused reports whether the mode cannot serve the pod: ztunnel and Istio's injector
// ignore pods on the host's network, and a label opts a pod out of Istio's injector.
func isRefused(pod *corev1.Pod, mode string) bool {
	return (mode == "istio" || mode == "ambient") && pod.Spec.HostNetwork || mode == "istio" && pod.Labels[policy.IstioInjectKey] == "false"
}

// assertAdditive asserts that after contains every value of before, list items first.
func assertAdditive(t *testing.T, path string, before, after any) {
	t.Helper()
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		require.True(t, ok, path)
		for key := range b {
			require.Contains(t, a, key, path)
			assertAdditive(t, path+"/"+key, b[key], a[key])
		}
	case []any:
		a, ok := after.([]any)
		require.True(t, ok, path)
		require.GreaterOrEqual(t, len(a), len(b), path)
		for i := range b {
			assertAdditive(t, path, b[i], a[i])
		}
	default:
		assert.Equal(t, before, after, path)
	}
}

func newEngine(t testing.TB, o inject.Options) *inject.Engine {
	t.Helper()
	engine, err := inject.New(o)
	require.NoError(t, err)
	return engine
}

func labelled(name string) policy.Namespace {
	return policy.Namespace{Name: name, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return data
}

func decode(t testing.TB, data []byte) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(data, pod))
	return pod
}

func jsonValue(t testing.TB, data []byte) (v any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(data, &v))
	return v
}

func apply(t testing.TB, pod []byte, result inject.Result) []byte {
	t.Helper()
	return applyOps(t, pod, slices.Clone(result.Patch))
}

func applyOps(t testing.TB, pod []byte, ops any) []byte {
	t.Helper()
	patch, err := jsonpatch.DecodePatch(encode(t, ops))
	require.NoError(t, err)
	out, err := patch.Apply(pod)
	require.NoError(t, err)
	return out
}

func codes(r inject.Result) []string {
	var out []string
	for _, w := range r.Warnings {
		out = append(out, w.Code)
	}
	return out
}
