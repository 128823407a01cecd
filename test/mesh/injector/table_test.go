package injector

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// place is a namespace as Istio sees it.
type place struct {
	namespace, pod keys
	// injector is the revision whose injector of Istio serves a pod that wants it,
	// "" for none; mesh is whose settings count for a sidecar of ours.
	injector, mesh string
	// calls is how often its injector is called for a pod. Default: once.
	calls int
}

var places = map[string]place{
	"without a word about Istio":   {injector: "default", mesh: "default"},
	"istio-injection=enabled":      {namespace: keys{"istio-injection": "enabled"}, injector: "default", mesh: "default"},
	"istio-injection=disabled":     {namespace: keys{"istio-injection": "disabled"}, mesh: "default"},
	"istio.io/rev=default":         {namespace: keys{"istio.io/rev": "default"}, injector: "default", mesh: "default"},
	"istio.io/rev of a revision":   {namespace: keys{"istio.io/rev": canary}, injector: canary, mesh: canary},
	"istio.io/rev of a tag":        {namespace: keys{"istio.io/rev": prod}, injector: "default", mesh: "default"},
	"istio.io/rev of canary's tag": {namespace: keys{"istio.io/rev": next}, injector: canary, mesh: canary},
	"a pod's revision":             {pod: keys{"istio.io/rev": canary}, injector: canary, mesh: canary},
	"istio-injection=enabled and another revision": {
		namespace: keys{"istio-injection": "enabled", "istio.io/rev": canary}, injector: "default", mesh: canary,
	},
	"two revisions": {namespace: keys{"istio.io/rev": "default"}, pod: keys{"istio.io/rev": canary}, injector: "default", mesh: canary},
	"a pod's tag":   {pod: keys{"istio.io/rev": next}, injector: canary, mesh: canary},
}

// pods are what is created in each of them.
var pods = map[string]func() *corev1.Pod{
	"Emissary":                         edge,
	"Emissary, as the vendors have it": func() *corev1.Pod { return changed(edge(), vendors) },
	"a generic proxy":                  generic,
}

// The table of the two injectors: every mode, wherever Istio's injector would
// act or not.
func TestStoredPod(t *testing.T) {
	for _, mode := range slices.Sorted(maps.Keys(judges)) {
		for where, place := range places {
			t.Run(mode+" in "+where, func(t *testing.T) { judgeAll(t, mode, place) })
		}
	}
}

func judgeAll(t *testing.T, mode string, where place) {
	t.Helper()
	s := newSpace(t, enabled.with(where.namespace), keys{"isthmus.dev/mode": mode})
	for what, make := range pods {
		t.Run(what, func(t *testing.T) { s.judge(t, mode, where, make()) })
	}
}

func (s *space) judge(t *testing.T, mode string, where place, pod *corev1.Pod) {
	t.Helper()
	pod.Name, pod.GenerateName = "", "front-"
	for key, value := range where.pod {
		labelled(key, value)(pod)
	}
	o := outcome{before: pod.DeepCopy(), revision: where.mesh}
	if mode == "istio" {
		o.revision = where.injector
	}
	asked := counting(t)
	s.warnings.Drain()

	got, err := s.create(pod)

	require.NoError(t, err)
	if mode == "istio" && where.injector == "" {
		assert.Equal(t, calls(""), asked(), "Istio is not called")
		judgeUntouched(t, o, got)
		require.Len(t, s.warnings.Drain(), 1)
		return
	}
	assert.Empty(t, s.warnings.Drain())
	judges[mode](t, o, got)
	if mode != "istio" {
		assert.Equal(t, calls(""), asked(), "Istio is not called")
		return
	}
	want := calls(where.injector)
	want[where.injector] *= float64(max(1, where.calls))
	assert.Equal(t, want, asked(), "Istio is called, and no other revision")
}
