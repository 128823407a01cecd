package inject_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestModeAmbient shows that labels and annotations change, and the spec does not.
func TestModeAmbient(t *testing.T) {
	for name, ns := range map[string]policy.Namespace{
		"in a labelled namespace": labelled("edge"),
		"alone":                   {Name: "edge"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := annotated(policy.ModeKey, "ambient", policy.InjectKey, "true")
			pod.Labels = map[string]string{policy.IstioUseWaypointLabel: "waypoint"}
			engine := newEngine(t, inject.Options{})
			result := engine.Inject(inject.Request{Pod: pod, Namespace: ns})
			require.Equal(t, policy.Injected, result.Reason, result.Message)
			assert.Empty(t, result.Warnings)
			checkInjected(t, engine, pod, ns, result)
			after := decode(t, apply(t, encode(t, pod), result))
			assert.Equal(t, pod.Spec, after.Spec)
			assert.Equal(t, map[string]string{
				policy.InjectedLabel: "ambient", policy.IstioDataplaneLabel: "ambient", policy.IstioInjectKey: "false", policy.IstioUseWaypointLabel: "waypoint",
			}, after.Labels)
			assert.Equal(t, "true", after.Annotations[policy.AmbientInboundKey])
		})
	}
}

func TestModeAmbientRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*corev1.Pod)
		want string
	}{
		"host network":        {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "the pod is on the host's network, where ztunnel captures nothing; choose isthmus.dev/mode: sidecar, or set hostNetwork: false"},
		"kept out of ambient": {func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioDataplaneLabel: "none"} }, `label istio.io/dataplane-mode is "none", which contradicts isthmus.dev/mode ambient; remove one of them`},
		"captured": {func(p *corev1.Pod) { p.Annotations[policy.AmbientInboundKey] = "false" },
			`annotation ambient.istio.io/bypass-inbound-capture is "false", so ztunnel would capture what clients outside the mesh send, and refuse it where mutual TLS is STRICT; remove it`},
		"peers that send mTLS": {func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioTLSModeLabel: "istio"} },
			`label security.istio.io/tlsMode is "istio", which makes peers send mTLS to ports where mode ambient terminates none; remove it`},
		"our marker": {func(p *corev1.Pod) { p.Labels = map[string]string{policy.InjectedLabel: "ambient"} }, `label isthmus.dev/injected ("ambient") is written by Isthmus; remove it`},
	} {
		t.Run(name, func(t *testing.T) {
			engine, pod := newEngine(t, inject.Options{}), annotated(policy.ModeKey, "ambient")
			c.edit(pod)
			result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			assert.False(t, result.Denied)
			assert.Equal(t, policy.Conflict, result.Reason)
			assert.Equal(t, c.want, result.Message)
			assert.Empty(t, result.Patch)

			pod.Annotations[policy.InjectKey] = "true"
			assert.True(t, engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")}).Denied)
		})
	}
}

// TestModeAmbientAsksIstioToo shows that a pod that asks Istio for a sidecar counts as
// integrated by hand in this mode too.
func TestModeAmbientAsksIstioToo(t *testing.T) {
	pod := annotated(policy.ModeKey, "ambient")
	pod.Labels = map[string]string{policy.IstioInjectKey: "true"}
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.Equal(t, policy.ManualIntegration, result.Reason)
	assert.Empty(t, result.Patch)
}

func TestModeAmbientWarns(t *testing.T) {
	for name, c := range map[string]struct {
		labels      map[string]string
		annotations []string
		namespace   map[string]string
		image       string
		want        []string
	}{
		"of a label for gateways":         {labels: map[string]string{policy.IstioIngressWaypointLabel: "true"}, want: []string{"ingress-waypoint"}},
		"of an Istio without the bypass":  {image: "istio/proxyv2:1.23.4", want: []string{"bypass-too-old"}},
		"not of one with it":              {image: "istio/proxyv2:1.24.0"},
		"not of one that nobody can tell": {image: "corp/proxyv2@sha256:0d1f2e3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"},
		"of a sidecar's annotation":       {annotations: []string{policy.IstioProxyCPUKey, "1"}, want: []string{"no-effect"}},
		"of the namespace's Secret":       {namespace: map[string]string{policy.ServiceAccountKey: "edge", policy.DeliveryKey: "secret"}, want: []string{"no-effect", "no-effect"}},
	} {
		t.Run(name, func(t *testing.T) {
			pod, ns := annotated(append(c.annotations, policy.ModeKey, "ambient")...), labelled("edge")
			pod.Labels, ns.Annotations = c.labels, c.namespace
			result := newEngine(t, inject.Options{Settings: inject.Settings{Mesh: patches.Mesh{ProxyImage: c.image}}}).Inject(inject.Request{Pod: pod, Namespace: ns})
			assert.Equal(t, policy.Injected, result.Reason, result.Message)
			assert.Equal(t, c.want, codes(result))
		})
	}
}

// TestAmbientBackends shows the warning about backends whose mutual TLS ztunnel terminates:
// the edge's own certificate does not help there.
func TestAmbientBackends(t *testing.T) {
	for _, mode := range policy.Modes() {
		ns := labelled("edge")
		ns.Labels[policy.IstioDataplaneLabel] = "ambient"
		result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: annotated(policy.ModeKey, string(mode)), Namespace: ns})
		require.Equal(t, policy.Injected, result.Reason, result.Message)
		if mode == policy.Ambient {
			assert.NotContains(t, codes(result), "ambient-backends", mode)
		} else {
			assert.Contains(t, codes(result), "ambient-backends", mode)
		}
	}
}
