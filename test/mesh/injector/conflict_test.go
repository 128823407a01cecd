package injector

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// noInjectorMessage lists the revisions that are served, and by which configuration.
const noInjectorMessage = `no injector of Istio serves revision or tag "nowhere", only default (istio-sidecar-injector), canary (istio-sidecar-injector-canary), ` +
	`next (istio-revision-tag-next), prod (istio-revision-tag-prod): name one of these with label istio.io/rev`

// Isthmus refuses mode istio where Istio's injector would not do its part.
func TestModeIstioIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		namespace keyValues
		pod       change
		message   string
	}{
		"where the namespace has Istio's injection disabled": {
			keyValues{"istio-injection": "disabled"}, func(*corev1.Pod) {}, "has the label istio-injection=disabled, so Istio's injector is not called; remove the label, or set it to enabled",
		},
		"where no injector serves the pod's revision": {
			nil, withLabel("istio.io/rev", "nowhere"), noInjectorMessage,
		},
		"where the namespace's revision is empty": {
			keyValues{"istio.io/rev": ""}, func(*corev1.Pod) {}, "has the label istio.io/rev without a value, which no injector of Istio selects",
		},
		"on the host's network": {
			nil, func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet },
			"the pod is on the host's network, where Istio's injector adds no sidecar; choose isthmus.dev/mode: sidecar, or set hostNetwork: false",
		},
		"where a label keeps Istio's injector away": {
			keyValues{"istio-injection": "enabled"}, withLabel("sidecar.istio.io/inject", "false"),
			`label sidecar.istio.io/inject is "false", which contradicts isthmus.dev/mode istio; remove one of them`,
		},
		"where a label is none of the two that Istio's selectors know": {
			nil, withLabel("sidecar.istio.io/inject", "yes"), `label sidecar.istio.io/inject is "yes"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t, injectionEnabled.merge(test.namespace), keyValues{"isthmus.dev/mode": "istio"})
			pod := modified(edgePod(), vendorAnnotations, test.pod)
			o := expectation{submitted: pod.DeepCopy()}
			reviewCounts := countReviews(t)

			_, err := ns.dryRun(modified(pod.DeepCopy(), optIn))
			require.ErrorContains(t, err, "conflict: ")
			require.ErrorContains(t, err, test.message)
			assert.Empty(t, ns.warnings.Drain())

			got, err := ns.create(pod)
			require.NoError(t, err)
			warned := ns.warnings.Drain()
			require.Len(t, warned, 1)
			assert.Contains(t, warned[0], test.message)
			if !pod.Spec.HostNetwork { // its ports are completed by the API server
				assertUnchanged(t, o, got)
			}
			assert.NoError(t, wantProxies(0)(got))
			assert.Equal(t, o.submitted.Labels, got.Labels)
			assert.Equal(t, o.submitted.Annotations, got.Annotations)
			assert.Equal(t, expectedReviews(""), reviewCounts())

			// A user of kubectl sees the same.
			_, err = ns.apply(modified(pod.DeepCopy(), optIn))
			require.ErrorContains(t, err, test.message)
			ns.warnings.Drain()
			_, err = ns.apply(pod)
			require.NoError(t, err)
			warned = ns.warnings.Drain()
			require.Len(t, warned, 1)
			assert.Contains(t, warned[0], test.message)
		})
	}
}

// apply creates a Deployment of such pods, in a dry run: nothing here would run it.
func (ns *testNamespace) apply(pod *corev1.Pod) (*appsv1.Deployment, error) {
	ns.t.Helper()
	labels := keyValues(pod.Labels).merge(keyValues{"front": "door"})
	return ns.client.AppsV1().Deployments(ns.name).Create(ns.t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "front"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: pod.Annotations}, Spec: pod.Spec},
		},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// The namespace itself is refused when its revision has no injector, and so is a pod that
// requests injection in another namespace.
func TestRevisionWithoutAnInjectorIsRefused(t *testing.T) {
	_, err := createNamespace(t.Context(), "", injectionEnabled.merge(keyValues{"istio.io/rev": "nowhere"}), keyValues{"isthmus.dev/mode": "istio"})
	require.ErrorContains(t, err, noInjectorMessage)

	ns := newNamespace(t, keyValues{"istio.io/rev": "nowhere"}, nil)
	for _, mode := range []string{"istio", "sidecar"} {
		_, err = ns.dryRun(modified(edgePod(), optIn, withAnnotation("isthmus.dev/mode", mode)))
		assert.ErrorContains(t, err, "nowhere", mode)
	}
	_, err = ns.dryRun(modified(edgePod(), optIn, withAnnotation("isthmus.dev/mode", "istio")))
	assert.ErrorContains(t, err, "conflict: "+noInjectorMessage)
}
