package controller

import (
	"encoding/json"
	"errors"
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// upstreamContext is the TLSContext of the tests.
var upstreamContext = contextKind("istio-upstream")

// ownedObject is an API server with at most one TLSContext.
type ownedObject struct {
	current *unstructured.Unstructured
	// fail are the errors by verb.
	fail map[string]error
	// requests are the verbs of the requests.
	requests []string
	applied  map[string]any
	// keepCurrent has a deletion succeed without an effect, as if there were another
	// object.
	keepCurrent bool
}

func newOwnedObject(c *checker) *ownedObject {
	o := &ownedObject{fail: map[string]error{}}
	fake := dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())
	fake.PrependReactor("*", upstreamContext.Resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
		o.requests = append(o.requests, action.GetVerb())
		if err := o.fail[action.GetVerb()]; err != nil {
			return true, nil, err
		}
		switch action := action.(type) {
		case clienttesting.PatchAction:
			if action.GetPatchType() != types.ApplyPatchType {
				return true, nil, errors.New("want server-side apply")
			}
			o.applied = map[string]any{}
			return true, &unstructured.Unstructured{Object: o.applied}, json.Unmarshal(action.GetPatch(), &o.applied)
		case clienttesting.DeleteAction:
			if !o.keepCurrent {
				o.current = nil
			}
			return true, nil, nil
		}
		if o.current == nil {
			return true, nil, apierrors.NewNotFound(action.GetResource().GroupResource(), "object")
		}
		return true, o.current.DeepCopy(), nil
	})
	c.Dynamic = fake
	return o
}

// setCurrent has the cluster hold a TLSContext with these labels.
func (o *ownedObject) setCurrent(labels map[string]string) {
	o.current = &unstructured.Unstructured{}
	o.current.SetGroupVersionKind(upstreamContext.GroupVersion().WithKind(upstreamContext.kind))
	o.current.SetNamespace("edge")
	o.current.SetName(upstreamContext.name)
	o.current.SetLabels(labels)
}

func TestReconcileObject(t *testing.T) {
	ours := map[string]string{policy.ManagedByLabel: policy.ManagedBy}
	fields := map[string]any{"spec": map[string]any{"secret": "istio-certs"}}
	const content = `{"spec":{"secret":"istio-certs"}}`
	away := errors.New("connection refused")
	for name, test := range map[string]struct {
		fields map[string]any
		// current are the labels of the object in the cluster; nil when there is none.
		current   map[string]string
		applied   map[string]string
		rescanned bool
		fail      map[string]error
		requests  []string
		recorded  []string
		// known is the content that is known to be applied afterwards.
		known map[string]string
		err   string
	}{
		"if it is wanted and absent, expect it to be applied": {
			fields: fields, requests: []string{"get", "patch"}, known: map[string]string{"istio-upstream": content},
		},
		"if it is wanted and ours, expect it to be applied": {
			fields: fields, current: ours, requests: []string{"get", "patch"}, known: map[string]string{"istio-upstream": content},
		},
		"if it is applied, expect no request": {
			fields: fields, applied: map[string]string{"istio-upstream": content}, known: map[string]string{"istio-upstream": content},
		},
		"if it is someone else's, expect an Event": {
			fields: fields, current: map[string]string{}, requests: []string{"get"}, recorded: []string{EventConflict}, known: map[string]string{},
		},
		"if it is not wanted at the first scan, expect no request": {known: map[string]string{}},
		"if it is not wanted at the second scan and absent, expect that to be known": {
			rescanned: true, requests: []string{"get"}, known: map[string]string{"istio-upstream": ""},
		},
		"if it is not wanted at the second scan and ours, expect it to be deleted": {
			rescanned: true, current: ours, requests: []string{"get", "get", "delete"}, known: map[string]string{"istio-upstream": ""},
		},
		"if it is not wanted any more, expect it to be deleted": {
			applied: map[string]string{"istio-upstream": content}, current: ours, requests: []string{"get", "get", "delete"}, known: map[string]string{"istio-upstream": ""},
		},
		"if it is not wanted and someone else's, expect it to be left": {
			rescanned: true, current: map[string]string{}, requests: []string{"get"}, known: map[string]string{"istio-upstream": ""},
		},
		"if the cluster has no such kind, expect an Event": {
			fields: fields, fail: map[string]error{"patch": apierrors.NewNotFound(upstreamContext.GroupVersionResource.GroupResource(), "istio-upstream")},
			requests: []string{"get", "patch"}, recorded: []string{EventFailed}, known: map[string]string{"istio-upstream": content},
		},
		"if it cannot be read, expect the error": {
			fields: fields, fail: map[string]error{"get": away}, requests: []string{"get"}, known: map[string]string{}, err: "read TLSContext istio-upstream in namespace edge: connection refused",
		},
		"if it cannot be applied, expect the error and that nothing is known": {
			fields: fields, fail: map[string]error{"patch": away}, requests: []string{"get", "patch"}, known: map[string]string{}, err: "apply TLSContext istio-upstream in namespace edge: connection refused",
		},
		"if it cannot be deleted, expect the error and that it is tried again": {
			applied: map[string]string{"istio-upstream": content}, current: ours, fail: map[string]error{"delete": away},
			requests: []string{"get", "get", "delete"}, known: map[string]string{"istio-upstream": content}, err: "delete TLSContext istio-upstream in namespace edge: connection refused",
		},
		"if it is gone before it is deleted, expect no error": {
			rescanned: true, current: ours, fail: map[string]error{"delete": apierrors.NewNotFound(upstreamContext.GroupVersionResource.GroupResource(), "istio-upstream")},
			requests: []string{"get", "get", "delete"}, known: map[string]string{"istio-upstream": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChecker(t, newAuthority(t))
			o := newOwnedObject(c)
			if test.current != nil {
				o.setCurrent(test.current)
			}
			if test.applied != nil {
				c.state.applied = test.applied
			}
			if test.fail != nil {
				o.fail = test.fail
			}
			c.state.rescanned = test.rescanned
			err := c.reconcileObject(t.Context(), c.state, upstreamContext, maps.Clone(test.fields))
			if test.err == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.err)
			}
			assert.Equal(t, test.requests, o.requests)
			assert.Equal(t, test.recorded, c.recorded)
			assert.Equal(t, test.known, c.state.applied)
			if o.applied != nil {
				object := &unstructured.Unstructured{Object: o.applied}
				assert.Equal(t, "TLSContext", object.GetKind())
				assert.Equal(t, ours, object.GetLabels())
				assert.Equal(t, fields["spec"], o.applied["spec"])
			}
		})
	}
}

func TestDeleteOwned(t *testing.T) {
	away := errors.New("connection refused")
	for name, test := range map[string]struct {
		current  map[string]string
		fail     map[string]error
		requests []string
		err      string
	}{
		"if there is none, expect no deletion":          {requests: []string{"get"}},
		"if it is ours, expect it to be deleted":        {current: map[string]string{policy.ManagedByLabel: policy.ManagedBy}, requests: []string{"get", "delete"}},
		"if it is someone else's, expect it to be left": {current: map[string]string{policy.ManagedByLabel: "helm"}, requests: []string{"get"}},
		"if it cannot be read, expect the error": {
			fail: map[string]error{"get": away}, requests: []string{"get"}, err: "read TLSContext istio-upstream in namespace edge: connection refused",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChecker(t, newAuthority(t))
			o := newOwnedObject(c)
			if test.current != nil {
				o.setCurrent(test.current)
			}
			if test.fail != nil {
				o.fail = test.fail
			}
			err := c.deleteOwned(t.Context(), "edge", upstreamContext)
			if test.err == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.err)
			}
			assert.Equal(t, test.requests, o.requests)
		})
	}
}
