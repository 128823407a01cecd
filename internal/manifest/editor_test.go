package manifest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// fakeEngine returns the same result for every request and records the last request.
type fakeEngine struct {
	result  inject.Result
	request inject.Request
}

func (e *fakeEngine) Inject(r inject.Request) inject.Result {
	e.request = r
	return e.result
}

// TestInjectEditorRequest shows the request that the engine gets: a workload counts as
// opted in by its namespace, unless the namespace has a label that opts it out.
func TestInjectEditorRequest(t *testing.T) {
	e := &fakeEngine{}
	pod := &corev1.Pod{}
	InjectEditor(e)(Workload{Namespace: "emissary", Pod: pod})
	assert.Equal(t, policy.Namespace{Name: "emissary", Labels: map[string]string{"isthmus.dev/injection": "enabled"}}, e.request.Namespace)
	assert.True(t, e.request.Template)
	assert.Same(t, pod, e.request.Pod)

	labels := map[string]string{"isthmus.dev/injection": "disabled", "team": "edge"}
	annotations := map[string]string{"isthmus.dev/mode": "sidecar"}
	InjectEditor(e)(Workload{Namespace: "emissary", Pod: pod, NamespaceLabels: labels, NamespaceAnnotations: annotations})
	assert.Equal(t, policy.Namespace{Name: "emissary", Labels: labels, Annotations: annotations}, e.request.Namespace)
}

func TestInjectEditorSummary(t *testing.T) {
	warning := policy.Warning{Code: "code", Text: "mind the gap"}
	patch := []jsonpatch.Operation{newOperation("add", "/a", 1)}
	for name, test := range map[string]struct {
		result inject.Result
		want   Edit
	}{
		"injected":                {inject.Result{Reason: policy.Injected, Profile: "emissary", Mode: policy.Sidecar, Patch: patch}, Edit{Patch: patch, Summary: "injected (profile emissary, mode sidecar)"}},
		"with a warning":          {inject.Result{Reason: policy.Injected, Profile: "aes", Warnings: []policy.Warning{warning}}, Edit{Summary: "injected (profile aes)", Warnings: []string{"mind the gap"}}},
		"no edge":                 {inject.Result{Reason: policy.NoProfile}, Edit{Summary: "unchanged (no-profile)"}},
		"conflict":                {inject.Result{Reason: policy.Conflict, Profile: "aes", Message: "two of them"}, Edit{Summary: "unchanged (conflict, profile aes): two of them"}},
		"conflict with a warning": {inject.Result{Reason: policy.Conflict, Message: "two", Warnings: []policy.Warning{warning}}, Edit{Summary: "unchanged (conflict)", Warnings: []string{"mind the gap"}}},
		"denied":                  {inject.Result{Reason: policy.InvalidOverride, Denied: true, Message: "no"}, Edit{Summary: "unchanged (invalid-override): no", Err: errors.New("denied (invalid-override): no")}},
	} {
		t.Run(name, func(t *testing.T) {
			got := InjectEditor(&fakeEngine{result: test.result})(Workload{})
			if test.want.Err != nil {
				require.EqualError(t, got.Err, test.want.Err.Error())
				got.Err, test.want.Err = nil, nil
			}
			assert.Equal(t, test.want, got)
		})
	}
}

func TestUninjectEditorSummary(t *testing.T) {
	patch := []jsonpatch.Operation{newOperation("remove", "/a", nil)}
	for name, test := range map[string]struct {
		ops  []jsonpatch.Operation
		err  error
		want Edit
	}{
		"injected":     {patch, nil, Edit{Patch: patch, Summary: "uninjected"}},
		"not injected": {nil, nil, Edit{Summary: "unchanged (not injected)"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, UninjectEditor(func(*corev1.Pod) ([]jsonpatch.Operation, error) { return test.ops, test.err })(Workload{Pod: &corev1.Pod{}}))
		})
	}
	got := UninjectEditor(func(*corev1.Pod) ([]jsonpatch.Operation, error) { return nil, errors.New("volume x was changed") })(Workload{})
	assert.EqualError(t, got.Err, "cannot be reverted: volume x was changed")
}
