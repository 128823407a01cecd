package injector

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// scenario is a namespace and a pod as Istio sees them.
type scenario struct {
	namespace, pod keyValues
	// injector is the revision whose injector serves a pod that requests it, "" for none;
	// mesh is the revision whose settings apply to the sidecar of Isthmus.
	injector, mesh string
	// reviews is the number of calls to that injector for a pod. Default: 1.
	reviews int
}

var scenarios = map[string]scenario{
	"without a label of Istio":     {injector: "default", mesh: "default"},
	"istio-injection=enabled":      {namespace: keyValues{"istio-injection": "enabled"}, injector: "default", mesh: "default"},
	"istio-injection=disabled":     {namespace: keyValues{"istio-injection": "disabled"}, mesh: "default"},
	"istio.io/rev=default":         {namespace: keyValues{"istio.io/rev": "default"}, injector: "default", mesh: "default"},
	"istio.io/rev of a revision":   {namespace: keyValues{"istio.io/rev": canary}, injector: canary, mesh: canary},
	"istio.io/rev of a tag":        {namespace: keyValues{"istio.io/rev": prod}, injector: "default", mesh: "default"},
	"istio.io/rev of canary's tag": {namespace: keyValues{"istio.io/rev": next}, injector: canary, mesh: canary},
	"a pod's revision":             {pod: keyValues{"istio.io/rev": canary}, injector: canary, mesh: canary},
	"istio-injection=enabled and another revision": {
		namespace: keyValues{"istio-injection": "enabled", "istio.io/rev": canary}, injector: "default", mesh: canary,
	},
	"two revisions": {namespace: keyValues{"istio.io/rev": "default"}, pod: keyValues{"istio.io/rev": canary}, injector: "default", mesh: canary},
	"a pod's tag":   {pod: keyValues{"istio.io/rev": next}, injector: canary, mesh: canary},
}

// pods are created in each scenario.
var pods = map[string]func() *corev1.Pod{
	"Emissary":                              edgePod,
	"Emissary with its chart's annotations": func() *corev1.Pod { return modified(edgePod(), vendorAnnotations) },
	"a generic proxy":                       genericPod,
}

// This is the table of the two injectors: every mode, both where Istio's injector would act
// and where it would not.
func TestStoredPodInEveryModeAndNamespace(t *testing.T) {
	for _, mode := range slices.Sorted(maps.Keys(assertByMode)) {
		for description, sc := range scenarios {
			t.Run(mode+" in "+description, func(t *testing.T) { testMode(t, mode, sc) })
		}
	}
}

func testMode(t *testing.T, mode string, sc scenario) {
	t.Helper()
	ns := newNamespace(t, injectionEnabled.merge(sc.namespace), keyValues{"isthmus.dev/mode": mode})
	for name, newPod := range pods {
		t.Run(name, func(t *testing.T) { ns.testPod(t, mode, sc, newPod()) })
	}
}

func (ns *testNamespace) testPod(t *testing.T, mode string, sc scenario, pod *corev1.Pod) {
	t.Helper()
	pod.Name, pod.GenerateName = "", "front-"
	for key, value := range sc.pod {
		withLabel(key, value)(pod)
	}
	o := expectation{submitted: pod.DeepCopy(), revision: sc.mesh}
	if mode == "istio" {
		o.revision = sc.injector
	}
	reviewCounts := countReviews(t)
	ns.warnings.Drain()

	got, err := ns.create(pod)

	require.NoError(t, err)
	if mode == "istio" && sc.injector == "" {
		assert.Equal(t, expectedReviews(""), reviewCounts(), "Istio is not called")
		assertUnchanged(t, o, got)
		require.Len(t, ns.warnings.Drain(), 1)
		return
	}
	assert.Empty(t, ns.warnings.Drain())
	assertByMode[mode](t, o, got)
	if mode != "istio" {
		assert.Equal(t, expectedReviews(""), reviewCounts(), "Istio is not called")
		return
	}
	want := expectedReviews(sc.injector)
	want[sc.injector] *= float64(max(1, sc.reviews))
	assert.Equal(t, want, reviewCounts(), "Istio is called, and no other revision")
}
