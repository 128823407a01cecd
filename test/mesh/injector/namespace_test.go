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

// Istio injects an ordinary pod in an edge's namespace as it does without Isthmus.
func TestPodThatIsNoEdgeIsInjectedByIstioAlone(t *testing.T) {
	withoutIsthmus := newNamespace(t, istioInjectionEnabled, nil)
	want, err := withoutIsthmus.create(otherPod())
	require.NoError(t, err)
	ns := newNamespace(t, injectionEnabled.merge(istioInjectionEnabled), keyValues{"isthmus.dev/mode": "istio"})
	reviewCounts := countReviews(t)

	got, err := ns.create(otherPod())

	require.NoError(t, err)
	assert.Equal(t, expectedReviews("default"), reviewCounts())
	require.NoError(t, wantProxies(1)(got))
	assert.Empty(t, differences(t, want, got))
	assert.Empty(t, ns.warnings.Drain())
}

// In an ambient namespace ztunnel does not handle an edge with a certificate of its own, and
// a warning tells the user what does not work there.
func TestEdgeInAnAmbientNamespace(t *testing.T) {
	const dataplane = "istio.io/dataplane-mode"
	for mode, want := range map[string]string{"sidecar": "none", "istio": "none", "secret": "none", "ambient": "ambient"} {
		t.Run(mode, func(t *testing.T) {
			ns := newNamespace(t, injectionEnabled.merge(keyValues{dataplane: "ambient"}), keyValues{"isthmus.dev/mode": mode})
			reviewCounts := countReviews(t)

			pod, err := ns.create(modified(edgePod(), vendorAnnotations))

			require.NoError(t, err)
			assert.Equal(t, want, pod.Labels[dataplane])
			assert.Equal(t, mode, pod.Labels["isthmus.dev/injected"])
			if mode == "istio" {
				assert.Equal(t, expectedReviews("default"), reviewCounts())
			} else {
				assert.Equal(t, expectedReviews(""), reviewCounts())
			}
			warned := ns.warnings.Drain()
			if mode == "ambient" {
				assert.Empty(t, warned)
				return
			}
			require.Len(t, warned, 1)
			assert.Contains(t, warned[0], "is in ambient mode (label istio.io/dataplane-mode): ztunnel does not terminate mutual TLS on a backend's own port")
		})
	}
}

// Without a default revision, a pod that names no revision is refused with the list of
// revisions. If the tag default belongs to another revision, that revision serves the pod.
func TestPodWithoutARevisionGetsTheDefaultOne(t *testing.T) {
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		require.NoError(t, env.canary.InstallInjector(ctx, *defaultInjector(canary)))
		require.NoError(t, replaceInjector(ctx, *defaultInjector(""), wantInitContainer("istio-init")))
	})
	require.NoError(t, env.Istiod.RemoveInjector(t.Context()))
	t.Run("does not exist", func(t *testing.T) {
		require.NoError(t, awaitEdge(t.Context(), nil, wantDenial("no injector of Istio serves pods that name no revision, only canary (istio-sidecar-injector-canary), next (istio-revision-tag-next)")))
		ns := newNamespace(t, injectionEnabled.merge(istioInjectionEnabled), keyValues{"isthmus.dev/mode": "istio"})
		pod := modified(edgePod(), vendorAnnotations)
		got, err := ns.create(pod.DeepCopy())
		require.NoError(t, err)
		assertUnchanged(t, expectation{submitted: pod}, got)
		warned := ns.warnings.Drain()
		require.Len(t, warned, 1)
		assert.Contains(t, warned[0], "no injector of Istio serves pods that name no revision")
	})
	t.Run("is the one with the tag default", func(t *testing.T) {
		require.NoError(t, env.canary.InstallInjector(t.Context(), istio.Injector{Tags: []string{next, "default"}}))
		require.NoError(t, awaitEdge(t.Context(), nil, wantInitContainer("istio-init")))
		sc := scenario{namespace: istioInjectionEnabled, injector: canary, mesh: canary}
		testMode(t, "istio", sc)
		testMode(t, "sidecar", sc)
	})
}

// Where Isthmus skips an edge and the namespace requests Istio's injection, Istio injects
// the edge and captures all of its traffic. Only the warning says so.
func TestEdgeThatIsthmusSkipsIsInjectedByIstio(t *testing.T) {
	ns := newNamespace(t, injectionEnabled.merge(istioInjectionEnabled), nil)
	pod := modified(edgePod(), withLabel("security.istio.io/tlsMode", "istio"))

	got, err := ns.create(pod)

	require.NoError(t, err)
	require.NoError(t, wantProxies(1)(got))
	assertAllInboundCaptured(t, got)
	warned := ns.warnings.Drain()
	require.Len(t, warned, 3)
	assert.Contains(t, warned[0], `left without an identity: label security.istio.io/tlsMode is "istio"`)
	// Isthmus is called again after Istio's edit.
	assert.Contains(t, warned[1], byIstioMessage)
	assert.Contains(t, warned[2], "the integration by hand lacks")
}

// assertAllInboundCaptured checks that Istio captures all inbound traffic of the pod.
func assertAllInboundCaptured(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	init := pod.Spec.InitContainers[0]
	at := slices.Index(init.Args, "-b")
	require.GreaterOrEqual(t, at, 0)
	assert.Equal(t, "*", init.Args[at+1])
}
