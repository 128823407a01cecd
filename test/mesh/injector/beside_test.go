package injector

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// An edge's neighbour is Istio's as it would be without Isthmus.
func TestNeighbourIsIstios(t *testing.T) {
	plain := newSpace(t, istioEnabled, nil)
	want, err := plain.create(other())
	require.NoError(t, err)
	s := newSpace(t, enabled.with(istioEnabled), keys{"isthmus.dev/mode": "istio"})
	asked := counting(t)

	got, err := s.create(other())

	require.NoError(t, err)
	assert.Equal(t, calls("default"), asked())
	require.NoError(t, proxies(1)(got))
	assert.Empty(t, differences(t, want, got))
	assert.Empty(t, s.warnings.Drain())
}

// In an ambient namespace an edge with a certificate of its own stays out of
// ztunnel's hands, and the user hears what it cannot do there.
func TestAmbientNamespace(t *testing.T) {
	const dataplane = "istio.io/dataplane-mode"
	for mode, want := range map[string]string{"sidecar": "none", "istio": "none", "secret": "none", "ambient": "ambient"} {
		t.Run(mode, func(t *testing.T) {
			s := newSpace(t, enabled.with(keys{dataplane: "ambient"}), keys{"isthmus.dev/mode": mode})
			asked := counting(t)

			pod, err := s.create(changed(edge(), vendors))

			require.NoError(t, err)
			assert.Equal(t, want, pod.Labels[dataplane])
			assert.Equal(t, mode, pod.Labels["isthmus.dev/injected"])
			if mode == "istio" {
				assert.Equal(t, calls("default"), asked())
			} else {
				assert.Equal(t, calls(""), asked())
			}
			warned := s.warnings.Drain()
			if mode == "ambient" {
				assert.Empty(t, warned)
				return
			}
			require.Len(t, warned, 1)
			assert.Contains(t, warned[0], "is in ambient mode (label istio.io/dataplane-mode): ztunnel does not terminate mutual TLS on a backend's own port")
		})
	}
}

// Without a default revision whoever names none is told which there are; with the
// tag default on another revision that one serves.
func TestDefaultRevision(t *testing.T) {
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		require.NoError(t, chain.canary.InstallInjector(ctx, *installed(canary)))
		require.NoError(t, exchange(ctx, *installed(""), served("istio-init")))
	})
	require.NoError(t, chain.Istiod.RemoveInjector(t.Context()))
	t.Run("is nobody's", func(t *testing.T) {
		require.NoError(t, awaitEdge(t.Context(), nil, refused("no injector of Istio serves pods that name no revision, only canary (istio-sidecar-injector-canary), next (istio-revision-tag-next)")))
		s := newSpace(t, enabled.with(istioEnabled), keys{"isthmus.dev/mode": "istio"})
		pod := changed(edge(), vendors)
		got, err := s.create(pod.DeepCopy())
		require.NoError(t, err)
		judgeUntouched(t, outcome{before: pod}, got)
		warned := s.warnings.Drain()
		require.Len(t, warned, 1)
		assert.Contains(t, warned[0], "no injector of Istio serves pods that name no revision")
	})
	t.Run("is that of the tag default", func(t *testing.T) {
		require.NoError(t, chain.canary.InstallInjector(t.Context(), istio.Injector{Tags: []string{next, "default"}}))
		require.NoError(t, awaitEdge(t.Context(), nil, served("istio-init")))
		where := place{namespace: istioEnabled, injector: canary, mesh: canary}
		judgeAll(t, "istio", where)
		judgeAll(t, "sidecar", where)
	})
}

// An edge that Isthmus leaves alone is Istio's to take where the namespace says
// so, with all of its traffic captured: the warning is all that tells.
func TestEdgeThatIsLeftAloneIsIstios(t *testing.T) {
	s := newSpace(t, enabled.with(istioEnabled), nil)
	pod := changed(edge(), labelled("security.istio.io/tlsMode", "istio"))

	got, err := s.create(pod)

	require.NoError(t, err)
	require.NoError(t, proxies(1)(got))
	judgeTakenWhole(t, got)
	warned := s.warnings.Drain()
	require.Len(t, warned, 3)
	assert.Contains(t, warned[0], `left without an identity: label security.istio.io/tlsMode is "istio"`)
	// Asked again after Istio's edit.
	assert.Contains(t, warned[1], byIstio)
	assert.Contains(t, warned[2], "the integration by hand lacks")
}

// judgeTakenWhole: Istio captures all that comes to the pod.
func judgeTakenWhole(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	init := pod.Spec.InitContainers[0]
	at := slices.Index(init.Args, "-b")
	require.GreaterOrEqual(t, at, 0)
	assert.Equal(t, "*", init.Args[at+1])
}
