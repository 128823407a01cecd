package admission

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// TestWarning checks the warnings that a user gets who creates a pod.
func TestWarning(t *testing.T) {
	conflictingVolume := func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "istiod-ca-cert"}} }
	for name, test := range map[string]struct {
		namespace []change
		pod       *corev1.Pod
		injected  bool
		want      []string
	}{
		"unknown key": {
			[]change{enabled}, edgePod("edge", annotated("isthmus.dev/cert-dri", "/certs")), true,
			[]string{"isthmus: annotation isthmus.dev/cert-dri is not known and has no effect; did you mean isthmus.dev/cert-dir?"},
		},
		"key of a namespace on a pod": {
			[]change{enabled}, edgePod("edge", labelled("isthmus.dev/injection", "enabled")), true,
			[]string{"isthmus: label isthmus.dev/injection has no effect there; use it as a label of a namespace"},
		},
		"pod that is opted in without its namespace": {
			[]change{withName("isthmus-test-alone")}, edgePod("edge", optIn), true,
			[]string{"isthmus: namespace isthmus-test-alone has no label isthmus.dev/injection=enabled, so no Secret is kept there: this pod gets certificate files only"},
		},
		"edge that does not reload rotated files": {
			[]change{enabled}, edgePod("edge", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "docker.io/emissaryingress/emissary:3.9.1" }), true,
			[]string{"isthmus: emissary in this version (docker.io/emissaryingress/emissary:3.9.1) notices a rotated file only when something else makes it reconfigure; " +
				"annotation isthmus.dev/delivery: secret avoids that"},
		},
		"collision in a pod that its namespace opts in": {
			[]change{enabled}, edgePod("edge", conflictingVolume), false,
			[]string{"isthmus: left without an identity: the pod has a volume istiod-ca-cert and Isthmus adds one of that name; rename it"},
		},
		"invalid value of the namespace": {
			[]change{withName("isthmus-test-invalid"), enabled, annotation("isthmus.dev/cert-ttl", "soon")}, edgePod("edge"), false,
			[]string{`isthmus: left without an identity: namespace isthmus-test-invalid: annotation isthmus.dev/cert-ttl: "soon" is not allowed; ` +
				"want a Go duration of at least one minute, such as 12h"},
		},
		"Windows in a pod that its namespace opts in": {
			[]change{enabled}, edgePod("edge", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "windows"} }), false,
			[]string{"isthmus: left without an identity: the pod runs on Windows, where Istio's agent does not; run the edge on Linux, or set isthmus.dev/inject: \"false\""},
		},
		"no warning": {[]change{enabled}, edgePod("edge"), true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newUnreviewedNamespace(t, test.namespace...)

			pod, err := s.dryRun(test.pod)

			require.NoError(t, err)
			assert.Equal(t, test.injected, isInjected(pod))
			assert.Equal(t, test.want, s.warnings.Drain())
		})
	}
}
