package controller

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// A TLSContext that somebody changes or deletes requeues its namespace and those that
// wait. The controller's own writes requeue nothing.
func TestChangedTLSContextRequeuesItsNamespace(t *testing.T) {
	const name = "istio-upstream"
	at := func(namespace, secret string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"secret": secret}}}
		o.SetNamespace(namespace)
		o.SetName(name)
		o.SetLabels(map[string]string{policy.ManagedByLabel: policy.ManagedBy})
		return o
	}
	for label, test := range map[string]struct {
		happens func(*contextIndex)
		want    []string
	}{
		"if it is what the controller wrote, expect nothing": {func(x *contextIndex) { x.observe(t.Context(), at("edge", "istio-certs")) }, nil},
		"if somebody changed it, expect its namespace":       {func(x *contextIndex) { x.observe(t.Context(), at("edge", "other")) }, []string{"edge", "waits"}},
		"if it was deleted, expect its namespace":            {func(x *contextIndex) { x.forget(t.Context(), at("edge", "istio-certs")) }, []string{"edge", "waits"}},
		"if the watch missed its end, expect its namespace": {func(x *contextIndex) {
			x.forget(t.Context(), cache.DeletedFinalStateUnknown{Obj: at("edge", "istio-certs")})
		}, []string{"edge", "waits"}},
		"if its namespace has no edge, expect those that wait": {func(x *contextIndex) { x.observe(t.Context(), at("by-hand", "own")) }, []string{"waits"}},
	} {
		t.Run(label, func(t *testing.T) {
			requeue := make(chan event.GenericEvent, 10)
			x := newContextIndex(nil, []string{name}, requeue)
			x.put(foundContextOf(at("edge", "istio-certs")))
			x.setWide("edge", contextDesire{})
			x.wait("waits")
			test.happens(x)
			close(requeue)
			var got []string
			for e := range requeue {
				got = append(got, e.Object.GetName())
			}
			assert.Equal(t, test.want, got)
		})
	}
}
