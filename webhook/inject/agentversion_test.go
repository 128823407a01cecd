package inject_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestVersionWarnings(t *testing.T) {
	const (
		unknown = "the tag of image istio/proxyv2:latest is not a version of Istio, so its agent is treated as the current version; use an image with a version as its tag, such as docker.io/istio/proxyv2:1.31.1"
		old     = "image istio/proxyv2:1.19.10 is of Istio 1.19.10, and the oldest that Isthmus supports is 1.20: Isthmus is not tested with its agent; " +
			"upgrade Istio, or choose another image with sidecar.istio.io/proxyImage"
	)
	for name, c := range map[string]struct {
		mode, mesh, override string
		code, text           string
	}{
		"if the mesh's image is of no version, expect a warning":     {mesh: "istio/proxyv2:latest", code: "proxy-version-unknown", text: unknown},
		"if the pod's is of none, expect a warning":                  {mesh: "istio/proxyv2:1.31.1", override: "istio/proxyv2:latest", code: "proxy-version-unknown", text: unknown},
		"if the mesh's is too old, expect a warning":                 {mesh: "istio/proxyv2:1.19.10", code: "proxy-too-old", text: old},
		"if the pod names a better one, expect none":                 {mesh: "istio/proxyv2:1.19.10", override: "istio/proxyv2:1.20.8"},
		"if it is the oldest that is supported, expect none":         {mesh: "istio/proxyv2:1.20.0"},
		"if nobody names one, expect none":                           {},
		"if Istio's injector adds an unknown one, expect a warning":  {mode: "istio", mesh: "istio/proxyv2:latest", code: "proxy-version-unknown", text: unknown},
		"if Istio's injector adds one too old, expect a warning":     {mode: "istio", mesh: "istio/proxyv2:1.19.10", code: "proxy-too-old", text: old},
		"if the pod asks Istio's for a better one, expect none":      {mode: "istio", mesh: "istio/proxyv2:1.19.10", override: "istio/proxyv2:1.20.8"},
		"if there is no agent in the pod, in mode secret, none":      {mode: "secret", mesh: "istio/proxyv2:latest"},
		"if there is no agent in the pod, in mode ambient, none too": {mode: "ambient", mesh: "istio/proxyv2:latest"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := annotated()
			for key, value := range map[string]string{policy.ModeKey: c.mode, policy.IstioProxyImageKey: c.override} {
				if value != "" {
					pod.Annotations[key] = value
				}
			}
			engine := newEngine(t, inject.Options{Settings: inject.Settings{Mesh: patches.Mesh{ProxyImage: c.mesh}}})
			result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			require.Equal(t, policy.Injected, result.Reason, result.Message)
			var want []policy.Warning
			if c.code != "" {
				want = []policy.Warning{{Code: c.code, Text: c.text}}
			}
			assert.Equal(t, want, result.Warnings)
		})
	}
}
