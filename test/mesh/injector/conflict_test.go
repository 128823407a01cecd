package injector

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// unserved names what is served, and by which configuration.
const unserved = `no injector of Istio serves revision or tag "nowhere", only default (istio-sidecar-injector), canary (istio-sidecar-injector-canary), ` +
	`next (istio-revision-tag-next), prod (istio-revision-tag-prod): name one of these with label istio.io/rev`

// Where Istio's injector would not do its part, mode istio does not begin.
func TestModeIstioIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		namespace keys
		pod       change
		because   string
	}{
		"where the namespace has Istio's injection disabled": {
			keys{"istio-injection": "disabled"}, func(*corev1.Pod) {}, "has the label istio-injection=disabled, so Istio's injector is not called; remove the label, or set it to enabled",
		},
		"where no injector serves the pod's revision": {
			nil, labelled("istio.io/rev", "nowhere"), unserved,
		},
		"where the namespace's revision is empty": {
			keys{"istio.io/rev": ""}, func(*corev1.Pod) {}, "has the label istio.io/rev without a value, which no injector of Istio's selects",
		},
		"on the host's network": {
			nil, func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet },
			"the pod is on the host's network, where Istio's injector adds no sidecar; choose isthmus.dev/mode: sidecar, or set hostNetwork: false",
		},
		"where a label keeps Istio's injector away": {
			keys{"istio-injection": "enabled"}, labelled("sidecar.istio.io/inject", "false"),
			`label sidecar.istio.io/inject is "false", which contradicts isthmus.dev/mode istio; remove one of them`,
		},
		"where a label is none of the two that Istio's selectors know": {
			nil, labelled("sidecar.istio.io/inject", "yes"), `label sidecar.istio.io/inject is "yes"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpace(t, enabled.with(test.namespace), keys{"isthmus.dev/mode": "istio"})
			pod := changed(edge(), vendors, test.pod)
			o := outcome{before: pod.DeepCopy()}
			asked := counting(t)

			_, err := s.dryRun(changed(pod.DeepCopy(), asks))
			require.ErrorContains(t, err, "conflict: ")
			require.ErrorContains(t, err, test.because)
			assert.Empty(t, s.warnings.Drain())

			got, err := s.create(pod)
			require.NoError(t, err)
			warned := s.warnings.Drain()
			require.Len(t, warned, 1)
			assert.Contains(t, warned[0], test.because)
			if !pod.Spec.HostNetwork { // whose ports the API server completes
				judgeUntouched(t, o, got)
			}
			assert.NoError(t, proxies(0)(got))
			assert.Equal(t, o.before.Labels, got.Labels)
			assert.Equal(t, o.before.Annotations, got.Annotations)
			assert.Equal(t, calls(""), asked())

			// The person at kubectl hears the same.
			_, err = s.apply(changed(pod.DeepCopy(), asks))
			require.ErrorContains(t, err, test.because)
			s.warnings.Drain()
			_, err = s.apply(pod)
			require.NoError(t, err)
			warned = s.warnings.Drain()
			require.Len(t, warned, 1)
			assert.Contains(t, warned[0], test.because)
		})
	}
}

// apply creates a Deployment of such pods, as a dry run: nothing here would run it.
func (s *space) apply(pod *corev1.Pod) (*appsv1.Deployment, error) {
	s.t.Helper()
	labels := keys(pod.Labels).with(keys{"front": "door"})
	return s.client.AppsV1().Deployments(s.name).Create(s.t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "front"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: pod.Annotations}, Spec: pod.Spec},
		},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// A namespace that is opted in is told of its revision itself; a pod that asks
// elsewhere is refused.
func TestRevisionThatNobodyServes(t *testing.T) {
	_, err := createNamespace(t.Context(), "", enabled.with(keys{"istio.io/rev": "nowhere"}), keys{"isthmus.dev/mode": "istio"})
	require.ErrorContains(t, err, unserved)

	s := newSpace(t, keys{"istio.io/rev": "nowhere"}, nil)
	for _, mode := range []string{"istio", "sidecar"} {
		_, err = s.dryRun(changed(edge(), asks, annotated("isthmus.dev/mode", mode)))
		assert.ErrorContains(t, err, "nowhere", mode)
	}
	_, err = s.dryRun(changed(edge(), asks, annotated("isthmus.dev/mode", "istio")))
	assert.ErrorContains(t, err, "conflict: "+unserved)
}
