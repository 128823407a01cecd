package admission

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// istioValues are values of Istio's own annotations that Istio's injector accepts, or passes
// on unchecked.
var istioValues = map[string]string{
	"sidecar.istio.io/logLevel":         "rbac:debug,jwt:debug",
	"sidecar.istio.io/proxyCPU":         "0",
	"sidecar.istio.io/proxyImage":       "Registry.example/Proxy:1",
	"sidecar.istio.io/proxyMemoryLimit": strings.Repeat("0", 100) + "128Mi",
	"status.sidecar.istio.io/port":      "0",
}

// A pod that is no edge may say anything in a namespace that is opted in, and so may the
// template of a workload.
func TestNeighboursAreLeftAlone(t *testing.T) {
	s := newNamespace(t, enabled)
	all := func(p *corev1.Pod) {
		for key, value := range istioValues {
			annotated(key, value)(p)
		}
	}
	changes := map[string]func(*corev1.Pod){"all": all}
	for key, value := range istioValues {
		changes[key] = annotated(key, value)
	}
	for name, change := range changes {
		pod, err := s.dryRun(otherPod("web", change))
		require.NoError(t, err, name)
		assert.NotContains(t, pod.Annotations, "isthmus.dev/status", name)
		assert.Empty(t, s.warnings.Drain(), name)
	}
	for kind, workload := range workloads {
		_, stderr, err := s.kubectl(workload(templateOf(otherPod("", all))), "apply", "--dry-run=server", "-f", "-")
		assert.NoError(t, err, kind)
		assert.Empty(t, stderr, kind)
	}
}

// An edge that only its namespace opted in is not denied for one of Istio's keys.
func TestIstioKeysDoNotDenyAnEdge(t *testing.T) {
	for key, injected := range map[string]bool{
		"sidecar.istio.io/logLevel":         true,
		"sidecar.istio.io/proxyCPU":         true,
		"sidecar.istio.io/proxyImage":       false,
		"sidecar.istio.io/proxyMemoryLimit": false,
		"status.sidecar.istio.io/port":      true,
	} {
		t.Run(key, func(t *testing.T) {
			s := newNamespace(t, enabled)

			pod, err := s.create(edgePod("edge", annotated(key, istioValues[key])))

			require.NoError(t, err)
			assert.Equal(t, injected, isInjected(pod))
			warnings := s.warnings.Drain()
			if !injected || key == "status.sidecar.istio.io/port" {
				require.Len(t, warnings, 1)
				assert.Contains(t, warnings[0], key)
			} else {
				assert.Empty(t, warnings)
			}
		})
	}
}

// During an upgrade and a rollback a replica reviews pods that a newer one has injected, with
// a field in their status that it does not know.
func TestPodOfANewerVersionIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){"its namespace opted it in": func(*corev1.Pod) {}, "it opted itself in": optIn} {
		t.Run(name, func(t *testing.T) {
			s := newNamespace(t, enabled)
			injected, err := s.dryRun(edgePod("edge", change))
			require.NoError(t, err)
			status := injected.Annotations["isthmus.dev/status"]
			require.Contains(t, status, `{"schema":1,`)
			newer := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "edge", Labels: injected.Labels, Annotations: injected.Annotations}, Spec: injected.Spec}
			newer.Annotations["isthmus.dev/status"] = strings.Replace(status, `{"schema":1,`, `{"schema":1,"note":"written by a newer version",`, 1)
			s.warnings.Drain()

			pod, err := s.create(newer)

			require.NoError(t, err)
			assert.Equal(t, newer.Annotations["isthmus.dev/status"], pod.Annotations["isthmus.dev/status"])
			assert.Equal(t, 1, sidecars(pod))
			assert.Empty(t, s.warnings.Drain())
		})
	}
}
