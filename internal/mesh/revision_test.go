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

	"github.com/isthmus-mesh/isthmus/patches"
)

func TestControlPlanes(t *testing.T) {
	objectMeta := func(name, rev string) metav1.ObjectMeta {
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
		configMaps = append(configMaps, &corev1.ConfigMap{ObjectMeta: objectMeta(name, rev)})
	}
	deployments := []*appsv1.Deployment{
		{ObjectMeta: objectMeta("istiod", "default")},
		{ObjectMeta: objectMeta("istiod-a", "a")},
		{ObjectMeta: objectMeta("istiod-gone", "gone")}, // its ConfigMaps are not there
		{ObjectMeta: objectMeta("my-istiod", "b")},
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

func TestResolve(t *testing.T) {
	tests := map[string]struct {
		requested, configured string
		known                 []string
		tags                  map[string]string
		// want is the revision, followed by @tag if a tag points to it.
		want, err string
	}{
		"if no revision is named, expect the default one":   {known: []string{"", "a"}},
		"if the settings name one, expect it":               {configured: "a", known: []string{"", "a"}, want: "a"},
		"if the pod names one, expect it over the settings": {requested: "b", configured: "a", known: []string{"", "a", "b"}, want: "b"},
		"if the pod names the default, expect it":           {requested: "default", configured: "a", known: []string{"", "a"}},
		"if the settings name the default, expect it":       {configured: "default", known: []string{"", "a"}},
		"if there is only one, expect it":                   {known: []string{"a"}, want: "a"},
		"if the default is requested and there is only one, expect it": {
			requested: "default", known: []string{"a"}, want: "a",
		},
		"if there are several and no default, expect their names": {
			known: []string{"b", "a"}, err: "istio in namespace mesh-ns has the revisions a, b and no default one: " +
				"name one of them with label istio.io/rev, or set the tag default",
		},
		"if there are several, tags and no default, expect their names": {
			known: []string{"b", "a"}, tags: map[string]string{"prod": "b", "dev": "a"},
			err: "istio in namespace mesh-ns has the revisions a, b and no default one; its tags are dev (revision a), prod (revision b): " +
				"name one of them with label istio.io/rev, or set the tag default",
		},
		"if the pod names one that is not installed, expect those that are": {
			requested: "c", known: []string{"a", ""}, err: `istio revision "c" is not installed in namespace mesh-ns, only default, a`,
		},
		"if the pod names neither revision nor tag, expect both lists": {
			requested: "c", known: []string{"a", ""}, tags: map[string]string{"prod": ""},
			err: `istio revision "c" is not installed in namespace mesh-ns, only default, a; its tags are prod (revision default)`,
		},
		"if the settings name one that is not installed, expect those that are": {
			configured: "c", known: []string{"a"}, err: `istio revision "c" is not installed in namespace mesh-ns, only a`,
		},
		"if there is no revision, expect an error": {err: "istio has no revision in namespace mesh-ns"},

		"if the pod names a tag, expect its revision":           {requested: "prod", known: []string{"", "a"}, tags: map[string]string{"prod": "a"}, want: "a@prod"},
		"if the settings name a tag, expect its revision":       {configured: "prod", known: []string{"", "a"}, tags: map[string]string{"prod": "a"}, want: "a@prod"},
		"if a tag points to the default revision, expect it":    {requested: "prod", known: []string{"", "a"}, tags: map[string]string{"prod": ""}, want: "@prod"},
		"if a revision has the name of a tag, expect it itself": {requested: "a", known: []string{"a", "b"}, tags: map[string]string{"a": "b"}, want: "a"},
		"if there is a tag default, expect its revision":        {known: []string{"a", "b"}, tags: map[string]string{"default": "b"}, want: "b@default"},
		"if the pod names the tag default, expect its revision": {
			requested: "default", configured: "a", known: []string{"a", "b"}, tags: map[string]string{"default": "b"}, want: "b@default",
		},
		"if there is a tag default, expect it over the default revision, as with Istio": {
			known: []string{"", "b"}, tags: map[string]string{"default": "b"}, want: "b@default",
		},
		"if the settings name a revision, expect it over the tag default": {
			configured: "a", known: []string{"a", "b"}, tags: map[string]string{"default": "b"}, want: "a",
		},
		"if there is only one and a tag that is not requested, expect it": {known: []string{"a"}, tags: map[string]string{"prod": "gone"}, want: "a"},
		"if a tag points to a missing revision, expect both names": {
			requested: "prod", known: []string{"a", "b"}, tags: map[string]string{"prod": "gone"},
			err: `istio's tag "prod" (object of prod) points to revision gone, which is not installed in namespace mesh-ns, only a, b: point it to one of these`,
		},
		"if the tag default points to a missing revision, expect both names": {
			known: []string{"", "b"}, tags: map[string]string{"default": "gone"},
			err: `istio's tag "default" (object of default) points to revision gone, which is not installed in namespace mesh-ns, only default, b: point it to one of these`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &meshState{
				namespace: "mesh-ns", explicit: patches.Mesh{Revision: tt.configured},
				revisions: make(map[string]revisionState), injectors: injectors{tags: make(map[string]tag)},
			}
			for _, k := range tt.known {
				s.revisions[k] = revisionState{}
			}
			for name, points := range tt.tags {
				s.injectors.tags[name] = tag{revision: points, source: "object of " + name}
			}
			got, err := s.resolve(tt.requested)
			if tt.err != "" {
				assert.EqualError(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			if got.tag != "" {
				got.revision += "@" + got.tag
			}
			assert.Equal(t, tt.want, got.revision)
		})
	}
}
