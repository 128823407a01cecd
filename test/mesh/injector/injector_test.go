package injector

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The real injector works here without Isthmus, before the other tests combine the two.
func TestIstioAloneInjects(t *testing.T) {
	for name, test := range map[string]struct {
		namespace, pod keyValues
		by             string
	}{
		"where the namespace is enabled":                          {keyValues{"istio-injection": "enabled"}, nil, "default"},
		"where the namespace names the default revision":          {keyValues{"istio.io/rev": "default"}, nil, "default"},
		"where the namespace names a tag of the default revision": {keyValues{"istio.io/rev": prod}, nil, "default"},
		"where the namespace names a revision":                    {keyValues{"istio.io/rev": canary}, nil, canary},
		"where the namespace names a tag of another revision":     {keyValues{"istio.io/rev": next}, nil, canary},
		"where the pod names a revision":                          {nil, keyValues{"istio.io/rev": canary}, canary},
		"where the pod requests it":                               {nil, keyValues{"sidecar.istio.io/inject": "true"}, "default"},
		"not where nothing requests it":                           {nil, nil, ""},
		"not where the namespace disables it":                     {keyValues{"istio-injection": "disabled"}, keyValues{"sidecar.istio.io/inject": "true"}, ""},
		"not where the namespace's revision has no injector":      {keyValues{"istio.io/rev": "nowhere"}, keyValues{"sidecar.istio.io/inject": "true"}, ""},
		"not where the namespace's revision is empty":             {keyValues{"istio.io/rev": ""}, keyValues{"sidecar.istio.io/inject": "true"}, ""},
		"not where the pod's revision has no injector":            {nil, keyValues{"istio.io/rev": "nowhere", "sidecar.istio.io/inject": "true"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t, test.namespace, nil)
			pod := otherPod()
			for key, value := range test.pod {
				withLabel(key, value)(pod)
			}
			reviewCounts := countReviews(t)

			got, err := ns.create(pod)

			require.NoError(t, err)
			assert.Equal(t, expectedReviews(test.by), reviewCounts())
			if test.by == "" {
				assert.NoError(t, wantProxies(0)(got))
				return
			}
			assert.NoError(t, wantProxies(1)(got))
			assert.Equal(t, test.by, got.Annotations["istio.io/rev"])
		})
	}
}

// expectedReviews returns the counts of countReviews when the injector of one revision is
// called once; of none for "".
func expectedReviews(revision string) map[string]float64 {
	want := map[string]float64{"default": 0, canary: 0}
	if revision != "" {
		want[revision] = 1
	}
	return want
}

// countReviews starts to count the reviews of the two istiods, and returns a function that
// returns the counts by revision.
func countReviews(t *testing.T) func() map[string]float64 {
	t.Helper()
	read := func() map[string]float64 {
		first, err := env.Istiod.InjectionCount(t.Context())
		require.NoError(t, err)
		second, err := env.canary.InjectionCount(t.Context())
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
