package mesh

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestControlPlanes(t *testing.T) {
	meta := func(name, rev string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Name: name, Namespace: "istio-system"}
		if rev != "" {
			m.Labels = map[string]string{revisionLabel: rev}
		}
		return m
	}
	var configMaps []*corev1.ConfigMap
	for name, rev := range map[string]string{
		"istio":                         "", // by hand
		"istio-sidecar-injector":        "default",
		"istio-a":                       "a",
		"istio-sidecar-injector-b":      "b",
		"istio-b":                       "b",
		"istio-ca-root-cert":            "", // no revision "ca-root-cert"
		"istio-gateway-class-defaults":  "a",
		"istio-sidecar-injector-backup": "b",
		"values-a":                      "a",
	} {
		configMaps = append(configMaps, &corev1.ConfigMap{ObjectMeta: meta(name, rev)})
	}
	deployments := []*appsv1.Deployment{
		{ObjectMeta: meta("istiod", "default")},
		{ObjectMeta: meta("istiod-a", "a")},
		{ObjectMeta: meta("istiod-gone", "gone")}, // its ConfigMaps are not there
		{ObjectMeta: meta("my-istiod", "b")},
	}
	planes := controlPlanes("istio-system", configMaps, deployments)
	require.Equal(t, []string{"", "a", "b"}, slices.Sorted(maps.Keys(planes)))

	p := planes[""]
	assert.Equal(t, "istio-sidecar-injector", p.Injector.Name)
	assert.Equal(t, "istio", p.MeshConfig.Name)
	assert.Equal(t, "istiod", p.Istiod.Name)

	p = planes["a"]
	assert.Equal(t, "a", p.Revision)
	assert.Nil(t, p.Injector)
	assert.Equal(t, "istio-a", p.MeshConfig.Name)
	assert.Equal(t, "istiod-a", p.Istiod.Name)

	p = planes["b"]
	assert.Equal(t, "istio-sidecar-injector-b", p.Injector.Name)
	assert.Nil(t, p.Istiod)
}

func TestChoose(t *testing.T) {
	tests := map[string]struct {
		asked, configured string
		known             []string
		want, err         string
	}{
		"if nobody names one, expect the default one":       {"", "", []string{"", "a"}, "", ""},
		"if the settings name one, expect it":               {"", "a", []string{"", "a"}, "a", ""},
		"if the pod names one, expect it over the settings": {"b", "a", []string{"", "a", "b"}, "b", ""},
		"if the pod names the default, expect it":           {"default", "a", []string{"", "a"}, "", ""},
		"if the settings name the default, expect it":       {"", "default", []string{"", "a"}, "", ""},
		"if there is only one, expect it":                   {"", "", []string{"a"}, "a", ""},
		"if the default is asked for and there is only one, expect it": {
			"default", "", []string{"a"}, "a", "",
		},
		"if there are several and no default, expect their names": {
			"", "", []string{"b", "a"}, "", "istio in namespace mesh-ns has the revisions a, b and no default one: name one of them",
		},
		"if the pod names one that is not there, expect those that are": {
			"c", "", []string{"a", ""}, "", `istio revision "c" is not installed in namespace mesh-ns, only default, a`,
		},
		"if the settings name one that is not there, expect those that are": {
			"", "c", []string{"a"}, "", `istio revision "c" is not installed in namespace mesh-ns, only a`,
		},
		"if there is none, expect that": {"", "", nil, "", "istio has no revision in namespace mesh-ns"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			known := make(map[string]int)
			for _, k := range tt.known {
				known[k] = 1
			}
			got, err := choose("mesh-ns", tt.asked, tt.configured, known)
			if tt.err != "" {
				assert.EqualError(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}
