package inject_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestResources shows what the added containers request and limit: what the settings say, in
// place of that Istio's annotations, and nothing that the pod's own figure covers.
func TestResources(t *testing.T) {
	lists := func(pairs ...string) corev1.ResourceList {
		list := corev1.ResourceList{}
		for i := 0; i < len(pairs); i += 2 {
			list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
		}
		return list
	}
	guaranteed := corev1.ResourceRequirements{Limits: lists("cpu", "1", "memory", "1Gi"), Requests: lists("cpu", "1", "memory", "1Gi")}
	own := patches.Resources{
		Sidecar:   &patches.ContainerResources{Requests: patches.ResourceList{CPU: "50m", Memory: "50Mi"}, Limits: patches.ResourceList{Memory: "200Mi"}},
		Envoy:     &patches.ContainerResources{Requests: patches.ResourceList{CPU: "200m"}, Limits: patches.ResourceList{CPU: "1", EphemeralStorage: "1Gi"}},
		Publisher: &patches.ContainerResources{Limits: patches.ResourceList{CPU: "20m"}},
	}
	type expected struct {
		requests, limits corev1.ResourceList
		memoryLimitEnv   bool
	}
	builtInSidecar := expected{lists("cpu", "10m", "memory", "64Mi"), lists("cpu", "500m", "memory", "128Mi"), true}
	builtInPublisher := expected{lists("cpu", "5m", "memory", "24Mi"), lists("cpu", "100m", "memory", "64Mi"), true}
	nothing := expected{lists(), lists(), false}
	for name, c := range map[string]struct {
		annotations        []string
		settings           patches.Resources
		pod, edge          corev1.ResourceRequirements
		sidecar, publisher expected
	}{
		"built in":            {sidecar: builtInSidecar, publisher: builtInPublisher},
		"of the settings":     {settings: own, sidecar: expected{lists("cpu", "50m", "memory", "50Mi"), lists("memory", "200Mi"), true}, publisher: expected{lists(), lists("cpu", "20m"), false}},
		"with Envoy":          {settings: own, annotations: []string{policy.EnvoyKey, "true"}, sidecar: expected{lists("cpu", "200m"), lists("cpu", "1", "ephemeral-storage", "1Gi"), false}, publisher: expected{lists(), lists("cpu", "20m"), false}},
		"Istio's keys win":    {settings: own, annotations: []string{policy.IstioProxyCPUKey, "60m", policy.IstioProxyCPULimitKey, "70m", policy.IstioProxyMemLimitKey, "40Mi"}, sidecar: expected{lists("cpu", "60m", "memory", "40Mi"), lists("cpu", "70m", "memory", "40Mi"), true}, publisher: expected{lists(), lists("cpu", "20m"), false}},
		"in a Guaranteed pod": {edge: guaranteed, sidecar: expected{builtInSidecar.limits, builtInSidecar.limits, true}, publisher: expected{builtInPublisher.limits, builtInPublisher.limits, true}},
		"in a Guaranteed pod, of the settings": {
			settings: own, edge: guaranteed,
			sidecar: expected{lists("cpu", "50m", "memory", "200Mi"), lists("cpu", "50m", "memory", "200Mi"), true}, publisher: expected{lists("cpu", "20m"), lists("cpu", "20m"), false},
		},
		"of the pod":             {pod: guaranteed, edge: guaranteed, sidecar: nothing, publisher: nothing},
		"limits of the pod":      {pod: corev1.ResourceRequirements{Limits: lists("cpu", "1", "memory", "1Gi")}, sidecar: nothing, publisher: nothing},
		"CPU of the pod":         {pod: corev1.ResourceRequirements{Requests: lists("cpu", "1")}, sidecar: expected{lists("memory", "64Mi"), lists("memory", "128Mi"), true}, publisher: expected{lists("memory", "24Mi"), lists("memory", "64Mi"), true}},
		"memory of the pod":      {pod: corev1.ResourceRequirements{Limits: lists("memory", "1Gi")}, sidecar: expected{lists("cpu", "10m"), lists("cpu", "500m"), false}, publisher: expected{lists("cpu", "5m"), lists("cpu", "100m"), false}},
		"huge pages of the pod":  {pod: corev1.ResourceRequirements{Limits: lists("hugepages-2Mi", "2Mi")}, sidecar: builtInSidecar, publisher: builtInPublisher},
		"pod over Istio's keys":  {pod: corev1.ResourceRequirements{Limits: lists("cpu", "1", "memory", "1Gi")}, annotations: []string{policy.IstioProxyCPUKey, "2", policy.IstioProxyMemoryKey, "2Gi"}, sidecar: nothing, publisher: nothing},
		"Istio's keys of a rest": {pod: corev1.ResourceRequirements{Limits: lists("cpu", "1")}, annotations: []string{policy.IstioProxyCPUKey, "2", policy.IstioProxyMemoryKey, "256Mi"}, sidecar: expected{lists("memory", "256Mi"), lists("memory", "256Mi"), true}, publisher: expected{lists("memory", "24Mi"), lists("memory", "64Mi"), true}},
	} {
		for kind, template := range map[string]bool{"pod": false, "template": true} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				pod := annotated(append([]string{policy.PublishKey, "true"}, c.annotations...)...)
				pod.Spec.Containers[0].Resources = c.edge
				if len(c.pod.Limits)+len(c.pod.Requests) > 0 {
					pod.Spec.Resources = &c.pod
				}
				engine := newEngine(t, inject.Options{Settings: inject.Settings{Resources: c.settings, PublisherImage: "corp/isthmus:1"}})
				result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge"), Template: template})
				require.Equal(t, policy.Injected, result.Reason, result.Message)
				after := decode(t, apply(t, encode(t, pod), result))
				checkInjected(t, engine, pod, labelled("edge"), result)
				for _, got := range []struct {
					container corev1.Container
					want      expected
				}{{after.Spec.InitContainers[0], c.sidecar}, {after.Spec.Containers[1], c.publisher}} {
					assert.Equal(t, texts(got.want.requests), texts(got.container.Resources.Requests), "requests of %s", got.container.Name)
					assert.Equal(t, texts(got.want.limits), texts(got.container.Resources.Limits), "limits of %s", got.container.Name)
					assert.Equal(t, got.want.memoryLimitEnv, inject.FindEnv(&got.container, "GOMEMLIMIT") != nil, "GOMEMLIMIT of %s", got.container.Name)
				}
				covered := slices.Contains(codes(result), "no-effect")
				assert.Equal(t, name == "pod over Istio's keys" || name == "Istio's keys of a rest", covered)
			})
		}
	}
}

// texts returns the quantities as text, so that they can be compared.
func texts(list corev1.ResourceList) map[string]string {
	out := map[string]string{}
	for name, q := range list {
		out[string(name)] = q.String()
	}
	return out
}
