package admission

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// quantities returns a list from pairs of a resource's name and its quantity.
func quantities(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

// ofContainer gives the edge's container requests and limits, ofPod the pod itself.
func ofContainer(requests, limits corev1.ResourceList) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
	}
}

func ofPod(requests, limits corev1.ResourceList) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: requests, Limits: limits}
	}
}

// What the added containers ask for never makes the API server refuse the pod, if it takes
// the pod without them.
func TestResourcesAreAdmitted(t *testing.T) {
	small := quantities("cpu", "200m", "memory", "256Mi")
	publish := annotated("isthmus.dev/publish", "true")
	for name, test := range map[string]struct {
		limits []corev1.LimitRangeItem
		quota  corev1.ResourceList
		pod    []func(*corev1.Pod)
		class  corev1.PodQOSClass
		// covered is what the pod itself covers, so that the added containers name none of
		// it.
		covered []corev1.ResourceName
	}{
		"a pod with resources of its own": {
			pod:   []func(*corev1.Pod){ofPod(small, quantities("cpu", "400m", "memory", "512Mi")), ofContainer(small, nil)},
			class: corev1.PodQOSBurstable, covered: []corev1.ResourceName{"cpu", "memory"},
		},
		"a pod with limits of its own alone": {
			pod:   []func(*corev1.Pod){ofPod(nil, quantities("cpu", "250m", "memory", "96Mi")), ofContainer(quantities("cpu", "200m", "memory", "64Mi"), nil)},
			class: corev1.PodQOSBurstable, covered: []corev1.ResourceName{"cpu", "memory"},
		},
		"a pod with requests of its own alone": {
			pod:   []func(*corev1.Pod){ofPod(small, nil), ofContainer(small, nil)},
			class: corev1.PodQOSBurstable, covered: []corev1.ResourceName{"cpu", "memory"},
		},
		"a pod with CPU of its own": {
			pod:   []func(*corev1.Pod){ofPod(quantities("cpu", "200m"), quantities("cpu", "200m")), ofContainer(quantities("cpu", "200m"), nil)},
			class: corev1.PodQOSBurstable, covered: []corev1.ResourceName{"cpu"},
		},
		"a pod with memory of its own": {
			pod:   []func(*corev1.Pod){ofPod(nil, quantities("memory", "64Mi"))},
			class: corev1.PodQOSBurstable, covered: []corev1.ResourceName{"memory"},
		},
		"a Guaranteed pod by resources of its own": {
			pod:   []func(*corev1.Pod){ofPod(small, small), ofContainer(small, nil)},
			class: corev1.PodQOSGuaranteed, covered: []corev1.ResourceName{"cpu", "memory"},
		},
		"a Guaranteed pod by its containers": {pod: []func(*corev1.Pod){ofContainer(small, small)}, class: corev1.PodQOSGuaranteed},
		"a pod with a user namespace":        {pod: []func(*corev1.Pod){func(p *corev1.Pod) { p.Spec.HostUsers = ptr.To(false) }}, class: corev1.PodQOSBurstable},
		"a pod with a user namespace and resources of its own": {
			pod:   []func(*corev1.Pod){func(p *corev1.Pod) { p.Spec.HostUsers = ptr.To(false) }, ofPod(small, small)},
			class: corev1.PodQOSGuaranteed, covered: []corev1.ResourceName{"cpu", "memory"},
		},
		"Istio's key above the pod's own figure": {
			pod:   []func(*corev1.Pod){ofPod(small, small), annotated("sidecar.istio.io/proxyMemory", "1Gi"), annotated("sidecar.istio.io/proxyCPULimit", "2")},
			class: corev1.PodQOSGuaranteed, covered: []corev1.ResourceName{"cpu", "memory"},
		},
		"a LimitRange of containers": {
			limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Min: quantities("cpu", "1m", "memory", "8Mi"), Max: quantities("cpu", "4", "memory", "2Gi")}},
			pod:    []func(*corev1.Pod){ofContainer(small, small)}, class: corev1.PodQOSGuaranteed,
		},
		"a LimitRange of pods, and a pod with resources of its own": {
			limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypePod, Max: quantities("cpu", "400m", "memory", "512Mi")}},
			pod:    []func(*corev1.Pod){ofPod(small, small), ofContainer(small, small)},
			class:  corev1.PodQOSGuaranteed, covered: []corev1.ResourceName{"cpu", "memory"},
		},
		"a LimitRange with defaults": {
			limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Default: quantities("cpu", "300m", "memory", "300Mi"), DefaultRequest: quantities("cpu", "150m", "memory", "150Mi")}},
			class:  corev1.PodQOSBurstable,
		},
		"a quota": {
			quota: quantities("requests.cpu", "700m", "requests.memory", "512Mi", "limits.cpu", "2", "limits.memory", "1Gi"),
			pod:   []func(*corev1.Pod){ofContainer(small, small)}, class: corev1.PodQOSGuaranteed,
		},
		"a quota, and a pod with resources of its own": {
			quota: quantities("requests.cpu", "200m", "requests.memory", "256Mi", "limits.cpu", "200m", "limits.memory", "256Mi"),
			pod:   []func(*corev1.Pod){ofPod(small, small), ofContainer(small, small)},
			class: corev1.PodQOSGuaranteed, covered: []corev1.ResourceName{"cpu", "memory"},
		},
	} {
		for kind, change := range map[string]func(*corev1.Pod){"sidecar": func(*corev1.Pod) {}, "publisher": publish, "Envoy": annotated("isthmus.dev/envoy", "true")} {
			if name == "a quota" && kind != "sidecar" {
				continue // the quota is for the sidecar
			}
			t.Run(name+"/"+kind, func(t *testing.T) {
				s := newNamespace(t, enabled)
				s.limit(test.limits, test.quota)

				pod, err := s.create(edgePod("edge", append(test.pod, change)...))

				require.NoError(t, err)
				require.True(t, isInjected(pod))
				assert.Equal(t, test.class, pod.Status.QOSClass)
				for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers[1:]...) {
					for _, name := range []corev1.ResourceName{"cpu", "memory"} {
						_, requested := c.Resources.Requests[name]
						_, limited := c.Resources.Limits[name]
						covered := slices.Contains(test.covered, name)
						assert.Equal(t, !covered, requested, "request of %s in %s", name, c.Name)
						assert.Equal(t, !covered, limited, "limit of %s in %s", name, c.Name)
					}
					assert.Equal(t, slices.Contains(test.covered, "memory"), !hasVariable(&c, "GOMEMLIMIT"), "GOMEMLIMIT of %s", c.Name)
				}
			})
		}
	}
}

// A LimitRange that refuses the built-in numbers is satisfied by the chart's values, and a
// pod's own annotations win over them.
func TestResourcesOfTheChart(t *testing.T) {
	limits := []corev1.LimitRangeItem{{
		Type: corev1.LimitTypeContainer, Min: quantities("cpu", "50m"), MaxLimitRequestRatio: quantities("cpu", "10"),
	}}
	edge := func(changes ...func(*corev1.Pod)) *corev1.Pod {
		cpu := quantities("cpu", "100m")
		return edgePod("edge", append(changes, ofContainer(cpu, cpu), annotated("isthmus.dev/publish", "true"))...)
	}
	s := newNamespace(t, enabled)
	s.limit(limits, nil)
	_, err := s.create(edge(annotated("sidecar.istio.io/proxyCPU", "40m")))
	require.ErrorContains(t, err, "minimum cpu usage per Container is 50m")

	env.useSettings(t, "--set=sidecar.resources.requests.cpu=50m", "--set=publisher.resources.requests.cpu=50m", "--set=sidecar.resources.limits.memory=null")

	pod, err := s.create(edge())
	require.NoError(t, err)
	require.True(t, isInjected(pod))
	agent := sidecar(pod)
	assert.Equal(t, "50m", agent.Resources.Requests.Cpu().String())
	assert.True(t, agent.Resources.Limits.Memory().IsZero())
	assert.False(t, hasVariable(agent, "GOMEMLIMIT"))
	assert.Equal(t, "50m", pod.Spec.Containers[1].Resources.Requests.Cpu().String())

	_, err = s.create(edge(annotated("sidecar.istio.io/proxyCPU", "40m"), func(p *corev1.Pod) { p.Name = "own" }))
	assert.ErrorContains(t, err, "minimum cpu usage per Container is 50m", "the pod's annotation wins")
}

// useSettings replaces the webhook until the end of the test by one with the settings of
// a chart that is rendered with these flags.
func (e *environment) useSettings(t *testing.T, flags ...string) {
	t.Helper()
	folder := t.TempDir()
	chart, err := renderChart(t.Context(), folder, flags...)
	require.NoError(t, err)
	settings, err := rendered[corev1.ConfigMap](&environment{chart: chart}, "ConfigMap", settingsName)
	require.NoError(t, err)
	path := filepath.Join(folder, "settings.yaml")
	require.NoError(t, os.WriteFile(path, []byte(settings.Data["settings.yaml"]), 0o600))
	r, err := e.startReplica(t.Context(), "--settings="+path)
	require.NoError(t, err)
	e.service.setReplicas() // closes the connections
	e.service.setReplicas(r)
	t.Cleanup(func() {
		e.service.setReplicas()
		e.service.setReplicas(e.server)
		require.NoError(t, r.stop(context.WithoutCancel(t.Context())))
	})
}

// limit creates a LimitRange and a quota, each if it has something in it.
func (s *testNamespace) limit(limits []corev1.LimitRangeItem, quota corev1.ResourceList) {
	s.t.Helper()
	if len(limits) > 0 {
		_, err := s.client.CoreV1().LimitRanges(s.name).Create(s.t.Context(), &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "limits"}, Spec: corev1.LimitRangeSpec{Limits: limits}}, metav1.CreateOptions{})
		require.NoError(s.t, err)
	}
	if len(quota) > 0 {
		_, err := s.client.CoreV1().ResourceQuotas(s.name).Create(s.t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "quota"}, Spec: corev1.ResourceQuotaSpec{Hard: quota}}, metav1.CreateOptions{})
		require.NoError(s.t, err)
	}
}

func hasVariable(c *corev1.Container, name string) bool {
	return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name })
}
