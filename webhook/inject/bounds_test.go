package inject

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestLargePodsAreBounded shows that the author of a pod does not control how much of the
// webhook's memory the pod takes.
func TestLargePodsAreBounded(t *testing.T) {
	engine, err := New(Options{})
	require.NoError(t, err)
	inject := func(name string, annotations map[string]string) Result {
		return engine.Inject(Request{
			Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}, Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: name, Image: "docker.io/emissaryingress/emissary:3.9.1"}},
			}},
			Namespace: policy.Namespace{Name: "edge", Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}},
		})
	}
	r := inject("edge", map[string]string{"a": strings.Repeat("x", maxMetadataBytes)})
	assert.Equal(t, policy.InvalidOverride, r.Reason)
	assert.Equal(t, "annotations hold 262145 bytes; Kubernetes takes at most 262144 of a pod", r.Message)
	r = inject("edge", map[string]string{policy.ModeKey: "istio", policy.IstioProxyConfigKey: strings.Repeat("[", maxProxyConfig+1)})
	assert.Contains(t, r.Message, "it holds 16385 bytes, and at most 16384 are read")

	assert.Equal(t, policy.Injected, inject("edge", nil).Reason)
	require.Len(t, engine.edits.entries, 1)
	for i := range 2000 {
		// The API server refuses the name, but only after the webhooks.
		require.Equal(t, policy.Injected, inject(fmt.Sprintf("%d%s", i, strings.Repeat("x", 2<<10)), nil).Reason)
	}
	assert.LessOrEqual(t, engine.edits.bytes, maxCacheBytes)
	assert.LessOrEqual(t, engine.renderings.bytes, maxCacheBytes)
}

// TestNothingIsKeptOfHostilePods shows that pods whose authors fill every text that the engine
// reads leave nothing behind: neither a parsed value nor a key of a cache.
func TestNothingIsKeptOfHostilePods(t *testing.T) {
	engine, err := New(Options{})
	require.NoError(t, err)
	long := func(i int, filler string) string { return fmt.Sprint(i) + strings.Repeat(filler, 240<<10) }
	status := `{"schema":1,"mode":"secret","container":"edge","certDir":"/%s","added":{"labels":{"isthmus.dev/injected":"secret"}}}`
	for name, annotations := range map[string]func(i int) map[string]string{
		"a long quantity": func(i int) map[string]string { return map[string]string{policy.IstioProxyMemLimitKey: long(i, "9")} },
		"a long fraction": func(i int) map[string]string { return map[string]string{policy.IstioProxyCPUKey: "1.1" + long(i, "0")} },
		"a long image": func(i int) map[string]string {
			return map[string]string{policy.IstioProxyImageKey: "a/" + long(i, "a")}
		},
		"long log levels": func(i int) map[string]string {
			return map[string]string{policy.IstioLogLevelKey: "a" + long(i, "a") + ":info"}
		},
		"a long key":       func(i int) map[string]string { return map[string]string{policy.Domain + long(i, "x"): ""} },
		"a long directory": func(i int) map[string]string { return map[string]string{policy.CertDirKey: "/" + long(i, "x")} },
		"a directory": func(i int) map[string]string {
			return map[string]string{policy.CertDirKey: fmt.Sprint("/", i, strings.Repeat("x", 500))}
		},
		"a long status": func(i int) map[string]string {
			return map[string]string{policy.StatusKey: fmt.Sprintf(status, long(i, "x"))}
		},
		"directories of status": func(i int) map[string]string {
			return map[string]string{policy.ModeKey: "secret", policy.StatusKey: fmt.Sprintf(status, fmt.Sprint(i, strings.Repeat("x", 500)))}
		},
		"a long ProxyConfig": func(i int) map[string]string {
			return map[string]string{policy.ModeKey: "istio", policy.IstioProxyConfigKey: fmt.Sprintf("a: %d%s", i, strings.Repeat("x", maxProxyConfig-100))}
		},
		"long mounts": func(i int) map[string]string {
			return map[string]string{policy.ModeKey: "istio", policy.IstioUserVolumeMount: fmt.Sprintf(`{"a":{"mountPath":"/%d%s"}}`, i, strings.Repeat("x", maxUserMounts-100))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			review := func(i int, image string) {
				pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: annotations(i), Labels: map[string]string{policy.InjectedLabel: "secret"}}}
				if _, ok := pod.Annotations[policy.StatusKey]; !ok {
					pod.Labels = nil
				}
				pod.Spec.Containers = []corev1.Container{{Name: "edge", Image: image}}
				engine.Inject(Request{Pod: pod, Namespace: policy.Namespace{Name: "edge", Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}})
			}
			for _, image := range []string{"emissaryingress/emissary:4.1.0", "registry.example/web:1"} {
				review(0, image)
				before := heapInUse()
				for i := range 100 {
					review(i, image)
				}
				assert.Less(t, heapInUse()-before, int64(2<<20), image)
			}
		})
	}
}

func heapInUse() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
