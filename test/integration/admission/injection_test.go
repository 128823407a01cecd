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
		webhook   string
	}{
		"if its namespace is enabled":                   {[]change{enabled}, func(*corev1.Pod) {}, "namespace"},
		"if its annotation opts it in":                  {nil, annotated("isthmus.dev/inject", "true"), "pod"},
		"if its label opts it in":                       {nil, labelled("isthmus.dev/inject", "true"), "pod"},
		"if label and annotation opt it in":             {nil, func(p *corev1.Pod) { labelled("isthmus.dev/inject", "true")(p); optIn(p) }, "pod"},
		"once, if namespace and pod opt it in":          {[]change{enabled}, optIn, "pod"},
		"with the Istio annotation of Emissary's chart": {[]change{enabled}, annotated("sidecar.istio.io/inject", "false"), "namespace"},
		"in a namespace with Pod Security restricted":   {[]change{enabled, restricted}, func(*corev1.Pod) {}, "namespace"},
		"if opted in with Pod Security restricted":      {[]change{restricted}, optIn, "pod"},
		"if the API server generates its name":          {[]change{enabled}, func(p *corev1.Pod) { p.Name, p.GenerateName = "", "edge-" }, "namespace"},
		"if opted in with a generated name":             {nil, func(p *corev1.Pod) { p.Name, p.GenerateName = "", "edge-"; optIn(p) }, "pod"},
		"with Envoy if the namespace sets it":           {[]change{enabled, restricted, annotation("isthmus.dev/envoy", "true")}, func(*corev1.Pod) {}, "namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newNamespace(t, test.namespace...)
			counters := snapshotCounters(t)

			pod, err := s.create(edgePod("edge", test.pod))

			require.NoError(t, err)
			assert.Equal(t, 1, sidecars(pod))
			require.NotNil(t, sidecar(pod))
			assert.Equal(t, "sidecar", pod.Labels["isthmus.dev/injected"])
			assert.NotEmpty(t, pod.Annotations["isthmus.dev/status"])
			assert.Equal(t, "/etc/istio-certs", variable(&pod.Spec.Containers[0], "AMBASSADOR_ISTIO_SECRET_DIR"))
			// Only one webhook is called. It is called twice, because the injected
			// container makes the API server mount its token and reinvoke the webhook.
			want := map[string]float64{"namespace": 0, "pod": 0, "injected": 1, "decided": 1}
			want[test.webhook] = 2
			counters.assertGrowth(want)
		})
	}
}

func TestPodIsNotChanged(t *testing.T) {
	optOut := func(p *corev1.Pod) { annotated("isthmus.dev/inject", "false")(p) }
	for name, test := range map[string]struct {
		namespace []change
		pod       *corev1.Pod
	}{
		"if nothing opts it in":                                  {nil, edgePod("edge")},
		"if nothing opts it in and no profile matches":           {nil, otherPod("redis")},
		"if its annotation opts it out":                          {[]change{enabled}, edgePod("edge", optOut)},
		"if its label opts it out":                               {[]change{enabled}, edgePod("edge", labelled("isthmus.dev/inject", "false"))},
		"if label and annotation opt it out":                     {[]change{enabled}, edgePod("edge", optOut, labelled("isthmus.dev/inject", "false"))},
		"if opted out in a namespace that is not opted in":       {nil, edgePod("edge", optOut)},
		"if its namespace is opted out":                          {[]change{label("isthmus.dev/injection", "disabled")}, edgePod("edge")},
		"if its namespace's label has another value":             {[]change{label("isthmus.dev/injection", "true")}, edgePod("edge")},
		"if its namespace carries the key as an annotation only": {[]change{annotation("isthmus.dev/injection", "enabled")}, edgePod("edge")},
		"if it has only Istio's label":                           {nil, edgePod("edge", labelled("sidecar.istio.io/inject", "true"))},
	} {
		t.Run(name, func(t *testing.T) {
			s := newUnreviewedNamespace(t, test.namespace...)
			sentinel := newNamespace(t, enabled)
			counters := snapshotCounters(t)

			pod, err := s.create(test.pod)
			require.NoError(t, err)
			assert.Zero(t, sidecars(pod))
			assert.NotContains(t, pod.Annotations, "isthmus.dev/status")
			assert.Empty(t, s.warnings.Drain())

			// The API server did not send it: of this pod and the sentinel, the webhook
			// reviewed only the sentinel.
			_, err = sentinel.dryRun(otherPod("sentinel"))
			require.NoError(t, err)
			counters.assertGrowth(map[string]float64{"namespace": 1, "pod": 0, "no-profile": 1, "decided": 1})
		})
	}
}

func TestOtherPodInEnabledNamespaceIsUnchanged(t *testing.T) {
	notOptedIn, optedIn := newNamespace(t), newNamespace(t, enabled)
	want, err := notOptedIn.dryRun(otherPod("redis"))
	require.NoError(t, err)

	got, err := optedIn.dryRun(otherPod("redis"))

	require.NoError(t, err)
	assert.Equal(t, canonical(t, want), canonical(t, got))
	assert.Empty(t, optedIn.warnings.Drain())
}

func TestExcludedNamespacesAreNeverReviewed(t *testing.T) {
	for _, namespace := range []string{"kube-system", releaseNamespace, excludedNamespace} {
		t.Run(namespace, func(t *testing.T) {
			require.NoError(t, env.createServiceAccount(t.Context(), namespace, "default"))
			s, sentinel := existingNamespace(t, namespace), newNamespace(t, enabled)
			s.setLabel("isthmus.dev/injection", "enabled")
			t.Cleanup(func() { s.setLabel("isthmus.dev/injection", "") })
			counters := snapshotCounters(t)

			for name, pod := range map[string]*corev1.Pod{
				"edge": edgePod("isthmus-test-edge"), "opted-in edge": edgePod("isthmus-test-asks", optIn),
			} {
				got, err := s.dryRun(pod)
				require.NoError(t, err, name)
				assert.Zero(t, sidecars(got), name)
			}

			_, err := sentinel.dryRun(otherPod("sentinel"))
			require.NoError(t, err)
			counters.assertGrowth(map[string]float64{"namespace": 1, "pod": 0, "decided": 1})
		})
	}
}
