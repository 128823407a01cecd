package injector

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The real injector works here before anything is said about the two together.
func TestIstioAloneInjects(t *testing.T) {
	for name, test := range map[string]struct {
		namespace, pod keys
		by             string
	}{
		"where the namespace is enabled":                     {keys{"istio-injection": "enabled"}, nil, "default"},
		"where the namespace names the default revision":     {keys{"istio.io/rev": "default"}, nil, "default"},
		"where the namespace names a tag of it":              {keys{"istio.io/rev": prod}, nil, "default"},
		"where the namespace names a revision":               {keys{"istio.io/rev": canary}, nil, canary},
		"where the namespace names a tag of that":            {keys{"istio.io/rev": next}, nil, canary},
		"where the pod names a revision":                     {nil, keys{"istio.io/rev": canary}, canary},
		"where the pod asks":                                 {nil, keys{"sidecar.istio.io/inject": "true"}, "default"},
		"not where nobody asks":                              {nil, nil, ""},
		"not where the namespace says no":                    {keys{"istio-injection": "disabled"}, keys{"sidecar.istio.io/inject": "true"}, ""},
		"not where the namespace's revision has no injector": {keys{"istio.io/rev": "nowhere"}, keys{"sidecar.istio.io/inject": "true"}, ""},
		"not where the namespace's revision is empty":        {keys{"istio.io/rev": ""}, keys{"sidecar.istio.io/inject": "true"}, ""},
		"not where the pod's revision has no injector":       {nil, keys{"istio.io/rev": "nowhere", "sidecar.istio.io/inject": "true"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpace(t, test.namespace, nil)
			pod := other()
			for key, value := range test.pod {
				labelled(key, value)(pod)
			}
			asked := counting(t)

			got, err := s.create(pod)

			require.NoError(t, err)
			assert.Equal(t, calls(test.by), asked())
			if test.by == "" {
				assert.NoError(t, proxies(0)(got))
				return
			}
			assert.NoError(t, proxies(1)(got))
			assert.Equal(t, test.by, got.Annotations["istio.io/rev"])
		})
	}
}

// calls is what counting tells where one revision's injector is asked once; ""
// is none.
func calls(revision string) map[string]float64 {
	want := map[string]float64{"default": 0, canary: 0}
	if revision != "" {
		want[revision] = 1
	}
	return want
}

// counting begins to count the reviews of the two istiods, and returns how many
// there were by revision.
func counting(t *testing.T) func() map[string]float64 {
	t.Helper()
	read := func() map[string]float64 {
		first, err := chain.Istiod.InjectionCount(t.Context())
		require.NoError(t, err)
		second, err := chain.canary.InjectionCount(t.Context())
		require.NoError(t, err)
		return map[string]float64{"default": first, canary: second}
	}
	before := read()
	return func() map[string]float64 {
		grown := read()
		for revision := range grown {
			grown[revision] -= before[revision]
		}
		return grown
	}
}
