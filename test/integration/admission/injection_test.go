package admission

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

func TestPodIsInjected(t *testing.T) {
	for name, test := range map[string]struct {
		namespace []change
		pod       func(*corev1.Pod)
		asked     string
	}{
		"if its namespace is enabled":                   {[]change{enabled}, func(*corev1.Pod) {}, "namespace"},
		"if its annotation asks":                        {nil, annotated("isthmus.dev/inject", "true"), "pod"},
		"if its label asks":                             {nil, labelled("isthmus.dev/inject", "true"), "pod"},
		"if label and annotation ask":                   {nil, func(p *corev1.Pod) { labelled("isthmus.dev/inject", "true")(p); asks(p) }, "pod"},
		"once, if both namespace and pod ask":           {[]change{enabled}, asks, "pod"},
		"whatever Emissary's charts say to Istio":       {[]change{enabled}, annotated("sidecar.istio.io/inject", "false"), "namespace"},
		"in a namespace that Pod Security restricts":    {[]change{enabled, restricted}, func(*corev1.Pod) {}, "namespace"},
		"if it asks where Pod Security restricts":       {[]change{restricted}, asks, "pod"},
		"if the API server makes its name":              {[]change{enabled}, func(p *corev1.Pod) { p.Name, p.GenerateName = "", "edge-" }, "namespace"},
		"if it asks and the API server makes its name":  {nil, func(p *corev1.Pod) { p.Name, p.GenerateName = "", "edge-"; asks(p) }, "pod"},
		"with full Envoy where the namespace wants one": {[]change{enabled, restricted, annotation("isthmus.dev/envoy", "true")}, func(*corev1.Pod) {}, "namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpace(t, test.namespace...)
			counters := count(t)

			pod, err := s.create(edgePod("edge", test.pod))

			require.NoError(t, err)
			assert.Equal(t, 1, sidecars(pod))
			require.NotNil(t, sidecar(pod))
			assert.Equal(t, "sidecar", pod.Labels["isthmus.dev/injected"])
			assert.NotEmpty(t, pod.Annotations["isthmus.dev/status"])
			assert.Equal(t, "/etc/istio-certs", variable(&pod.Spec.Containers[0], "AMBASSADOR_ISTIO_SECRET_DIR"))
			// One webhook is called for it, and never the other. It is called twice,
			// since our edit made the API server mount its token once more.
			want := map[string]float64{"namespace": 0, "pod": 0, "injected": 1, "decided": 1}
			want[test.asked] = 2
			counters.grew(want)
		})
	}
}

func TestPodIsLeftAlone(t *testing.T) {
	no := func(p *corev1.Pod) { annotated("isthmus.dev/inject", "false")(p) }
	for name, test := range map[string]struct {
		namespace []change
		pod       *corev1.Pod
	}{
		"if nobody asked":                                        {nil, edgePod("edge")},
		"if nobody asked and no profile matches":                 {nil, otherPod("redis")},
		"if its annotation says no":                              {[]change{enabled}, edgePod("edge", no)},
		"if its label says no":                                   {[]change{enabled}, edgePod("edge", labelled("isthmus.dev/inject", "false"))},
		"if label and annotation say no":                         {[]change{enabled}, edgePod("edge", no, labelled("isthmus.dev/inject", "false"))},
		"if its annotation says no and the namespace nothing":    {nil, edgePod("edge", no)},
		"if its namespace is locked":                             {[]change{label("isthmus.dev/injection", "disabled")}, edgePod("edge")},
		"if its namespace's label has another value":             {[]change{label("isthmus.dev/injection", "true")}, edgePod("edge")},
		"if its namespace carries the key as an annotation only": {[]change{annotation("isthmus.dev/injection", "enabled")}, edgePod("edge")},
		"if it only carries Istio's keys":                        {nil, edgePod("edge", labelled("sidecar.istio.io/inject", "true"))},
	} {
		t.Run(name, func(t *testing.T) {
			s := newUnreviewedSpace(t, test.namespace...)
			sentinel := newSpace(t, enabled)
			counters := count(t)

			pod, err := s.create(test.pod)
			require.NoError(t, err)
			assert.Zero(t, sidecars(pod))
			assert.NotContains(t, pod.Annotations, "isthmus.dev/status")
			assert.Empty(t, s.warnings.Drain())

			// It never left the API server: of it and the one that follows, the
			// server saw the second alone.
			_, err = sentinel.dryRun(otherPod("sentinel"))
			require.NoError(t, err)
			counters.grew(map[string]float64{"namespace": 1, "pod": 0, "no-profile": 1, "decided": 1})
		})
	}
}

func TestNeighbourInEnabledNamespaceComesOutAsItWentIn(t *testing.T) {
	plain, opted := newSpace(t), newSpace(t, enabled)
	want, err := plain.dryRun(otherPod("redis"))
	require.NoError(t, err)

	got, err := opted.dryRun(otherPod("redis"))

	require.NoError(t, err)
	assert.Equal(t, canonical(t, want), canonical(t, got))
	assert.Empty(t, opted.warnings.Drain())
}

func TestExcludedNamespacesAreNeverAsked(t *testing.T) {
	for _, namespace := range []string{"kube-system", releaseNamespace, excludedNamespace} {
		t.Run(namespace, func(t *testing.T) {
			require.NoError(t, world.createServiceAccount(t.Context(), namespace, "default"))
			s, sentinel := spaceIn(t, namespace), newSpace(t, enabled)
			s.setLabel("isthmus.dev/injection", "enabled")
			t.Cleanup(func() { s.setLabel("isthmus.dev/injection", "") })
			counters := count(t)

			for name, pod := range map[string]*corev1.Pod{
				"edge": edgePod("isthmus-test-edge"), "edge that asks": edgePod("isthmus-test-asks", asks),
			} {
				got, err := s.dryRun(pod)
				require.NoError(t, err, name)
				assert.Zero(t, sidecars(got), name)
			}

			_, err := sentinel.dryRun(otherPod("sentinel"))
			require.NoError(t, err)
			counters.grew(map[string]float64{"namespace": 1, "pod": 0, "decided": 1})
		})
	}
}
