package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestExpandReplacesKnownVariables(t *testing.T) {
	values := map[string]string{"POD_NAMESPACE": "emissary", "EMPTY": ""}
	for text, want := range map[string]string{
		"$(POD_NAMESPACE).svc.cluster.local": "emissary.svc.cluster.local",
		"--namespace=$(POD_NAMESPACE)":       "--namespace=emissary",
		"$(UNKNOWN)":                         "$(UNKNOWN)",
		"[$(EMPTY)]":                         "[]",
		"$POD_NAMESPACE":                     "$POD_NAMESPACE",
	} {
		if got := expand(text, values); got != want {
			t.Errorf("expand(%s) = %s, want %s", text, got, want)
		}
	}
}

func TestFindImageByRepository(t *testing.T) {
	n := &node{settings: Settings{Images: []Image{{Repository: "pilot"}, {Repository: "istio/proxyv2"}}}}
	for name, want := range map[string]string{
		"docker.io/istio/proxyv2:1.31.0":            "istio/proxyv2",
		"istio/proxyv2":                             "istio/proxyv2",
		"localhost:5000/istio/proxyv2@sha256:0123":  "istio/proxyv2",
		"registry.istio.io/testing/pilot:latest":    "pilot",
		"docker.io/istio/autopilot:1":               "",
		"docker.io/library/proxyv2:1.31.0":          "",
		"localhost:5000/mirror/istio/proxyv2:1.2.3": "istio/proxyv2",
	} {
		pc := &podContainer{pod: &pod{node: n}, spec: corev1.Container{Image: name}}
		image, err := pc.findImage()
		if image.Repository != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v, want %q", name, image.Repository, err, want)
		}
	}
}

func TestResourceValueIsRoundedUp(t *testing.T) {
	pc := &podContainer{spec: corev1.Container{Resources: corev1.ResourceRequirements{
		Limits:   corev1.ResourceList{"memory": resource.MustParse("128Mi"), "cpu": resource.MustParse("500m")},
		Requests: corev1.ResourceList{"memory": resource.MustParse("64Mi")},
	}}}
	for name, test := range map[string]struct{ path, divisor, want string }{
		"if there is a limit, expect its bytes":      {"limits.memory", "0", "134217728"},
		"if there is a divisor, expect the quotient": {"limits.memory", "1Mi", "128"},
		"if it is a fraction, expect it rounded up":  {"limits.cpu", "1", "1"},
		"if it is a request, expect it":              {"requests.memory", "1Mi", "64"},
		"if there is none, expect the default":       {"requests.cpu", "1", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			got := pc.resourceValue(&corev1.ResourceFieldSelector{Resource: test.path, Divisor: resource.MustParse(test.divisor)})
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestFieldValue(t *testing.T) {
	apiPod := &corev1.Pod{Spec: corev1.PodSpec{ServiceAccountName: "front"}}
	apiPod.Name, apiPod.Namespace = "edge", "emissary"
	apiPod.Labels = map[string]string{"b": "2", "a": "1"}
	p := &pod{apiPod: apiPod, sandbox: &sandbox{ip: "10.244.0.7"}}
	for path, want := range map[string]string{
		"metadata.name": "edge", "metadata.namespace": "emissary", "spec.serviceAccountName": "front", "status.podIP": "10.244.0.7",
		"metadata.labels['a']": "1", "metadata.labels": "a=\"1\"\nb=\"2\"", "metadata.annotations['none']": "",
	} {
		if got := p.fieldValue(path); got != want {
			t.Errorf("field %s = %q, want %q", path, got, want)
		}
	}
}
