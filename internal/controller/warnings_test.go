package controller

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestWarningsOf(t *testing.T) {
	const unknownText = "documentation of warnings"
	for name, test := range map[string]struct {
		dns    corev1.DNSPolicy
		change func(*testing.T, *edges, *corev1.Pod)
		// codes and texts are those of the warnings; a text is a part of it.
		codes, texts []string
	}{
		"if it was injected without warnings, expect none": {},
		"if it was injected with one, expect its text": {
			dns: corev1.DNSNone, codes: []string{"dns-policy"}, texts: []string{`dnsPolicy is "None": unless istiod's name resolves there`},
		},
		"if it was never injected, expect none": {
			dns: corev1.DNSNone, change: func(_ *testing.T, _ *edges, pod *corev1.Pod) { delete(pod.Annotations, policy.StatusKey) },
		},
		"if its status is unreadable, expect none": {
			dns: corev1.DNSNone, change: func(_ *testing.T, _ *edges, pod *corev1.Pod) { pod.Annotations[policy.StatusKey] = "{}" },
		},
		"if it was changed by hand, expect the code": {
			dns: corev1.DNSNone, change: func(_ *testing.T, _ *edges, pod *corev1.Pod) {
				pod.Spec.InitContainers, pod.Spec.Containers = nil, pod.Spec.Containers[:0]
			},
			codes: []string{"dns-policy"}, texts: []string{unknownText},
		},
		"if it would no longer be given, expect the code": {
			dns: corev1.DNSNone, change: func(_ *testing.T, _ *edges, pod *corev1.Pod) { pod.Spec.DNSPolicy = corev1.DNSClusterFirst },
			codes: []string{"dns-policy"}, texts: []string{unknownText},
		},
		"if another would be given today, expect only the one of the injection": {
			dns: corev1.DNSNone, change: func(t *testing.T, e *edges, _ *corev1.Pod) {
				t.Helper()
				settings := inject.Settings{}
				settings.Mesh.ProxyImage = "docker.io/istio/proxyv2:latest"
				engine, err := inject.New(inject.Options{Settings: settings})
				require.NoError(t, err)
				e.Engine = engine
			},
			codes: []string{"dns-policy"}, texts: []string{`dnsPolicy is "None"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdges(t)
			pod := e.injectedPod(corev1.PodSpec{
				DNSPolicy: test.dns, ServiceAccountName: "emissary",
				Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:4.1.0"}},
			}, "")
			if test.change != nil {
				test.change(t, e, &pod)
			}
			warnings := warningsOf(e.Engine, policy.Namespace{Name: "edge", Labels: e.cluster.namespace.Labels}, &pod)
			var codes []string
			for i, w := range warnings {
				codes = append(codes, w.Code)
				if i < len(test.texts) {
					assert.Contains(t, w.Text, test.texts[i])
				}
			}
			assert.Equal(t, test.codes, codes)
		})
	}
}
