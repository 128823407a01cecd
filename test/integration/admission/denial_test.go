package admission

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TestDenial checks the message that a user gets whose pod is refused.
func TestDenial(t *testing.T) {
	const prefix = `admission webhook "pod.isthmus.dev" denied the request: `
	override := func(key, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { optIn(p); annotated(key, value)(p) }
	}
	for name, test := range map[string]struct {
		namespace []change
		pod       *corev1.Pod
		want      string
	}{
		"opt-in annotation with another value": {
			nil, edgePod("edge", annotated("isthmus.dev/inject", "yes")),
			`invalid-override: annotation isthmus.dev/inject: "yes" is not allowed; want "true" or "false"`,
		},
		"opt-in annotation without a value": {
			nil, edgePod("edge", annotated("isthmus.dev/inject", "")),
			`invalid-override: annotation isthmus.dev/inject: "" is not allowed; want "true" or "false"`,
		},
		"opt-in label with another value": {
			nil, edgePod("edge", labelled("isthmus.dev/inject", "True")),
			`invalid-override: label isthmus.dev/inject: "True" is not allowed; want "true" or "false"`,
		},
		"label and annotation disagree": {
			nil, edgePod("edge", labelled("isthmus.dev/inject", "true"), annotated("isthmus.dev/inject", "false")),
			`conflict: label isthmus.dev/inject is "true" and annotation isthmus.dev/inject is "false"; remove one of them`,
		},
		"label and annotation disagree the other way round": {
			[]change{enabled}, edgePod("edge", labelled("isthmus.dev/inject", "false"), optIn),
			`conflict: label isthmus.dev/inject is "false" and annotation isthmus.dev/inject is "true"; remove one of them`,
		},
		"locked namespace": {
			[]change{withName("isthmus-test-locked"), label("isthmus.dev/injection", "disabled")}, edgePod("edge", optIn),
			`excluded-namespace: isthmus.dev/inject is "true" but namespace isthmus-test-locked is locked by its label isthmus.dev/injection=disabled; ` +
				`remove the key, or ask the namespace's owner to remove the label`,
		},
		"no edge": {
			nil, otherPod("redis", optIn),
			"no-profile: no profile recognises an edge among the containers main; name a profile with isthmus.dev/profile (aes, ambassador, emissary, generic), " +
				"and the container with isthmus.dev/container",
		},
		"Windows": {
			nil, edgePod("edge", optIn, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "windows"} }),
			`unsupported-os: the pod runs on Windows, where Istio's agent does not; run the edge on Linux, or set isthmus.dev/inject: "false"`,
		},
		"mode that does not exist": {
			nil, edgePod("edge", override("isthmus.dev/mode", "sidecars")),
			`invalid-override: annotation isthmus.dev/mode: "sidecars" is not allowed; want sidecar, istio, secret or ambient`,
		},
		"mode that contradicts another key": {
			nil, edgePod("edge", override("isthmus.dev/mode", "ambient"), override("isthmus.dev/delivery", "files")),
			`invalid-override: annotation isthmus.dev/delivery: "files" is not allowed; mode ambient gives the pod neither certificate nor sidecar; remove the annotation, or choose another mode`,
		},
		"delivery": {
			nil, edgePod("edge", override("isthmus.dev/delivery", "file")),
			`invalid-override: annotation isthmus.dev/delivery: "file" is not allowed; want files or secret`,
		},
		"profile": {
			nil, edgePod("edge", override("isthmus.dev/profile", "nginx")),
			`invalid-override: annotation isthmus.dev/profile: "nginx" is not a profile; known are aes, ambassador, emissary, generic`,
		},
		"certificate directory that is not absolute": {
			nil, edgePod("edge", override("isthmus.dev/cert-dir", "certs")),
			`invalid-override: annotation isthmus.dev/cert-dir: "certs" is not allowed; want an absolute path such as /etc/istio-certs, without colon or dollar sign`,
		},
		"certificate directory of the agent": {
			nil, edgePod("edge", override("isthmus.dev/cert-dir", "/var/run/secrets/workload-spiffe-credentials")),
			`invalid-override: annotation isthmus.dev/cert-dir: "/var/run/secrets/workload-spiffe-credentials" is not allowed; ` +
				`the agent uses /var/run/secrets/workload-spiffe-credentials itself; want another directory such as /etc/istio-certs`,
		},
		"Secret's name": {
			nil, edgePod("edge", override("isthmus.dev/secret-name", "other")),
			`invalid-override: annotation isthmus.dev/secret-name: "other" is not allowed; want one of the names that the chart allows: istio-certs`,
		},
		"publisher": {
			nil, edgePod("edge", override("isthmus.dev/publish", "yes")),
			`invalid-override: annotation isthmus.dev/publish: "yes" is not allowed; want "true" or "false"`,
		},
		"Envoy": {
			nil, edgePod("edge", override("isthmus.dev/envoy", "on")),
			`invalid-override: annotation isthmus.dev/envoy: "on" is not allowed; want "true" or "false"`,
		},
		"certificate lifetime": {
			nil, edgePod("edge", override("isthmus.dev/cert-ttl", "1 day")),
			`invalid-override: annotation isthmus.dev/cert-ttl: "1 day" is not allowed; want a Go duration of at least one minute, such as 12h`,
		},
		"container": {
			nil, edgePod("edge", override("isthmus.dev/container", "envoy")),
			`invalid-override: annotation isthmus.dev/container: "envoy" is not a container of the pod; its containers are main`,
		},
		"proxy image": {
			nil, edgePod("edge", override("sidecar.istio.io/proxyImage", "Not An Image")),
			`invalid-override: annotation sidecar.istio.io/proxyImage: "Not An Image" is not allowed; want an image such as docker.io/istio/proxyv2:1.31.1`,
		},
		"proxy CPU": {
			nil, edgePod("edge", override("sidecar.istio.io/proxyCPU", "lots")),
			`invalid-override: annotation sidecar.istio.io/proxyCPU: "lots" is not allowed; want a quantity such as 100m or 128Mi`,
		},
		"proxy log level": {
			nil, edgePod("edge", override("sidecar.istio.io/logLevel", "loud")),
			`invalid-override: annotation sidecar.istio.io/logLevel: "loud" is not allowed; want levels and components such as info or warning,rbac:debug, with the levels trace, debug, info, warning, error, critical or off`,
		},
		"status port of Envoy's": {
			nil, edgePod("edge", override("status.sidecar.istio.io/port", "15021")),
			`invalid-override: annotation status.sidecar.istio.io/port: "15021" is not allowed; Istio uses that port itself; want another one, by default 15020`,
		},
		"volume of the same name": {
			nil, edgePod("edge", optIn, func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{{Name: "istiod-ca-cert"}}
			}),
			"conflict: the pod has a volume istiod-ca-cert and Isthmus adds one of that name; rename it",
		},
		"the agent's port is taken": {
			nil, edgePod("edge", optIn, func(p *corev1.Pod) {
				p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 15020}}
			}),
			"conflict: container main listens on port 15020, which the agent needs; give the agent another one with annotation status.sidecar.istio.io/port",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newNamespace(t, test.namespace...)

			_, err := s.dryRun(test.pod)

			assert.EqualError(t, err, prefix+test.want)
			assert.True(t, apierrors.IsForbidden(err))
		})
	}
}

// A pod with an invalid annotation is refused, even if its namespace opts it in.
func TestPodInEnabledNamespaceIsDeniedForItsOwnValue(t *testing.T) {
	s := newNamespace(t, enabled)

	_, err := s.dryRun(edgePod("edge", annotated("isthmus.dev/envoy", "on")))

	assert.EqualError(t, err, `admission webhook "namespace.isthmus.dev" denied the request: `+
		`invalid-override: annotation isthmus.dev/envoy: "on" is not allowed; want "true" or "false"`)
}
