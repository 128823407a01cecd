package controller

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestCacheStripsMetadata(t *testing.T) {
	for name, test := range map[string]struct {
		others sets.Set[string]
		all    map[string]string
		cached map[string]string
	}{
		"if it is a pod, expect nothing, not even a map": {nil, map[string]string{policy.InjectedLabel: "sidecar", "app": "front"}, nil},
		"if it is a namespace, expect the keys of Isthmus and Istio's revision": {
			sets.New(policy.IstioRevisionLabel),
			map[string]string{policy.InjectionLabel: "enabled", policy.IstioRevisionLabel: "canary", policy.OpenShiftUIDRangeKey: "1/2", "team": "a"},
			map[string]string{policy.InjectionLabel: "enabled", policy.IstioRevisionLabel: "canary", policy.OpenShiftUIDRangeKey: "1/2"},
		},
		"if a namespace has no key of Isthmus, expect no map": {sets.New(policy.IstioRevisionLabel), map[string]string{"team": "a"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			in := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
				Name: "front", Labels: test.all, Annotations: test.all, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
			}}
			out, err := stripMetadata(test.others)(in)
			require.NoError(t, err)
			want := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "front", Labels: test.cached, Annotations: test.cached}}
			assert.Equal(t, want, out)
		})
	}
}
