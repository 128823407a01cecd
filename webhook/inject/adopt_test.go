package inject_test

import (
	"encoding/json"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	operations "gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// patchPod carries out a patch on a pod.
func patchPod(t testing.TB, pod *corev1.Pod, patch []operations.Operation) *corev1.Pod {
	t.Helper()
	before, err := json.Marshal(pod)
	require.NoError(t, err)
	raw, err := json.Marshal(patch)
	require.NoError(t, err)
	decoded, err := jsonpatch.DecodePatch(raw)
	require.NoError(t, err)
	after, err := decoded.Apply(before)
	require.NoError(t, err)
	out := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(after, out))
	return out
}

// checkAdopted asserts what holds for every adoption.
func checkAdopted(t testing.TB, engine *inject.Engine, request inject.Request, adoption inject.Adoption) {
	t.Helper()
	require.NotEmpty(t, adoption.Patch)
	plain := patchPod(t, request.Pod, adoption.Patch)
	for _, d := range adoption.Differences {
		assert.NotEmpty(t, d.Why, "%s: %s -> %s", d.Field, d.Before, d.After)
	}

	next := request
	next.Pod = plain
	again, err := engine.Adopt(next, inject.AdoptOptions{})
	require.NoError(t, err)
	assert.Empty(t, again.Patch, "adopting twice is adopting once")

	// A namespace with the label and one without.
	for _, ns := range []policy.Namespace{request.Namespace, labelled(request.Namespace.Name)} {
		next.Namespace = ns
		result := engine.Inject(next)
		require.Equal(t, policy.Injected, result.Reason, result.Message)
		injected := patchPod(t, plain, result.Patch)
		back, err := inject.Uninject(injected)
		require.NoError(t, err)
		assert.Equal(t, plain, patchPod(t, injected, back), "uninject gives the adopted pod back")
		assert.Equal(t, adoption.Mode, result.Mode)
	}
}
