package inject_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestCases reviews each pod of the cases in its namespace, as it is created.
func TestCases(t *testing.T) {
	if _, err := os.Stat(casesFolder); os.IsNotExist(err) {
		t.Skipf("no cases at %s; the essential ones are in TestNeighbours, TestIstioKeys, TestRefused, TestModeIstioRefuses and TestPorts", casesFolder)
	}
	istioFirst := inject.Injector{Configuration: "a-istio", RunsFirst: true, Reinvoked: true}
	type want struct {
		reason  policy.Reason
		denied  bool
		warning []string // what one warning contains
		patch   []string // what the patch contains
		lacks   []string // what the patch does not contain
	}
	untouched := want{reason: policy.NoProfile}
	conflict := func(words ...string) want { return want{reason: policy.Conflict, warning: words} }
	for file, pods := range map[string]map[string]want{
		"neighbours":      {"web-1": untouched, "web-2": untouched, "web-3": untouched},
		"neighbour-image": {"web-1": untouched},
		"edge-istio-keys": {
			"edge-1": {reason: policy.Injected, patch: []string{"--proxyLogLevel=rbac:debug,jwt:debug"}},
			"edge-2": {reason: policy.Injected, patch: []string{`"containerPort":15020`}, warning: []string{policy.IstioStatusPortKey, `"0"`}},
		},
		"quantity-long":   {"edge-1": {reason: policy.InvalidOverride, warning: []string{policy.IstioProxyMemLimitKey, "65 bytes"}}},
		"status-cert-dir": {"edge-1": conflict("certDir"), "edge-2": conflict("certDir")},
		"pod-level-resources": {
			"edge-1": {reason: policy.Injected, lacks: []string{`"requests"`, `"limits"`, "GOMEMLIMIT"}},
			"edge-2": {reason: policy.Injected, lacks: []string{`"requests"`, `"limits"`, "GOMEMLIMIT"}},
		},
		"istio-first-secret-volume": {"edge-1": conflict("volume istio-certs", "no emptyDir"), "edge-2": conflict("volume istio-certs", "no emptyDir")},
		"istio-output-empty": {
			"edge-1": conflict(policy.IstioProxyConfigKey, "OUTPUT_CERTS"),
			"edge-2": {reason: policy.Injected, patch: []string{`OUTPUT_CERTS: \"/etc/istio-certs\"`}},
		},
		"istio-mount-unusable": {
			"edge-1": conflict(policy.IstioUserVolumeMount, "istio-certs", "readOnly"),
			"edge-2": conflict(policy.IstioUserVolumeMount, "istio-certs", "subPath"),
		},
		"istio-mount-path-taken": {"edge-1": conflict(policy.IstioUserVolumeMount, "other", "istio-certs", "/etc/istio-certs")},
		"istio-no-sidecar":       {"edge-1": conflict(policy.IstioTemplatesKey, "grpc-simple")},
		"ports-of-envoy":         {"edge-1": conflict("emissary", "15021"), "edge-2": conflict("emissary", "15020")},
		"udp-port":               {"edge-1": {reason: policy.Injected}},
		"profile-empty":          {"edge-1": {reason: policy.InvalidOverride, denied: true}},
		"namespace-profile-empty": {
			"edge-1": {reason: policy.InvalidOverride, warning: []string{"namespace edge", policy.ProfileKey, `""`, "aes, ambassador, emissary"}},
		},
		"unknown-keys":    {"edge-1": {reason: policy.Injected, warning: []string{"isthmus.dev/flavour"}, patch: []string{`\"unknown-key\"],`}}},
		"cert-dir-parent": {"edge-1": {reason: policy.InvalidOverride, denied: true}, "edge-2": {reason: policy.Injected, patch: []string{"/srv/..certs"}}},
		"status-newer-field": {
			"edge-1": {reason: policy.AlreadyInjected}, "edge-2": {reason: policy.AlreadyInjected},
		},
		"openshift": {"edge-1": {reason: policy.Injected, patch: []string{"isthmus-publish"}, lacks: []string{"runAsUser", "runAsGroup", "seccompProfile"}}},
	} {
		data, err := os.ReadFile(filepath.Join(casesFolder, file+".yaml"))
		require.NoError(t, err)
		options := inject.Options{Settings: inject.Settings{PublisherImage: "corp/isthmus:1"}}
		if file == "istio-first-secret-volume" {
			options.Injector = func(string) (inject.Injector, error) { return istioFirst, nil }
		}
		engine := newEngine(t, options)
		var ns policy.Namespace
		seen := 0
		decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
		for {
			var object corev1.Pod
			err := decoder.Decode(&object)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if object.Kind == "Namespace" {
				ns = policy.Namespace{Name: object.Name, Labels: object.Labels, Annotations: object.Annotations}
				continue
			}
			seen++
			t.Run(file+"/"+object.Name, func(t *testing.T) {
				w, ok := pods[object.Name]
				require.True(t, ok, "a pod without an expectation")
				result := engine.Inject(inject.Request{Pod: &object, Namespace: ns})
				assert.Equal(t, w.reason, result.Reason, result.Message)
				assert.Equal(t, w.denied, result.Denied, result.Message)
				assert.Equal(t, w.reason == policy.Injected, len(result.Patch) > 0)
				var texts []string
				for _, warning := range result.Warnings {
					texts = append(texts, warning.Text)
				}
				if len(w.warning) > 0 {
					assert.True(t, containsAll(texts, w.warning), "%q in one of %q", w.warning, texts)
				}
				if w.reason == policy.NoProfile {
					assert.Empty(t, texts)
				}
				for _, text := range w.patch {
					assert.Contains(t, string(result.EncodedPatch), text)
				}
				for _, text := range w.lacks {
					assert.NotContains(t, string(result.EncodedPatch), text)
				}
				if w.reason == policy.Injected {
					checkInjected(t, engine, &object, ns, result)
				}
			})
		}
		assert.Equal(t, len(pods), seen, file)
	}
}

// containsAll reports whether one of the texts contains all the words.
func containsAll(texts, words []string) bool {
	for _, text := range texts {
		all := true
		for _, word := range words {
			all = all && strings.Contains(text, word)
		}
		if all {
			return true
		}
	}
	return false
}
