package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"k8s.io/utils/ptr"
)

func TestDecideNamespace(t *testing.T) {
	for name, test := range map[string]struct {
		o    namespaceObservation
		want namespaceAction
	}{
		"if the mesh is not known, expect to wait for it":            {namespaceObservation{}, actionAwaitMesh},
		"if it is opted in, expect its edges to be reconciled":       {namespaceObservation{isReady: true, isOptedIn: true}, actionReconcile},
		"if it is not opted in, expect its pods to be counted":       {namespaceObservation{isReady: true}, actionCountPods},
		"if edge pods are left, expect to wait for the last":         {namespaceObservation{isReady: true, injectedPods: ptr.To(1)}, actionAwaitLastPod},
		"if no edge pod is left, expect it to be cleaned up":         {namespaceObservation{isReady: true, injectedPods: ptr.To(0)}, actionCleanUp},
		"if it is opted in again, expect its edges to be reconciled": {namespaceObservation{isReady: true, isOptedIn: true, injectedPods: ptr.To(0)}, actionReconcile},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, decideNamespace(test.o)) })
	}
}

func TestScans(t *testing.T) {
	const every = 10 * time.Minute
	assert.True(t, isScanDue(time.Time{}, every, noon), "nothing was scanned")
	assert.False(t, isScanDue(noon, every, noon.Add(9*time.Minute-time.Second)))
	assert.True(t, isScanDue(noon, every, noon.Add(9*time.Minute)), "the jitter of the next reconciliation may be a tenth")

	assert.Equal(t, noon, scanTime(false, every, noon, sequence(0)))
	for random, want := range map[float64]time.Duration{0: 0, 0.5: 5 * time.Minute, 1: every} {
		assert.Equal(t, noon.Add(-want), scanTime(true, every, noon, sequence(random)), "the first scans spread over the whole interval")
	}
}

func TestNextReconciliation(t *testing.T) {
	const every = 10 * time.Minute
	for name, test := range map[string]struct {
		checks []time.Time
		random float64
		want   time.Duration
	}{
		"if there are no Secrets, expect the next scan":       {nil, 0.5, 8 * time.Minute},
		"if chance says so, expect the next scan earlier":     {nil, 0, 7 * time.Minute},
		"if chance says so, expect the next scan later":       {nil, 1, 9 * time.Minute},
		"if a Secret is checked earlier, expect that":         {[]time.Time{noon.Add(time.Minute)}, 0.5, time.Minute},
		"if several are checked, expect the first":            {[]time.Time{noon.Add(2 * time.Minute), noon.Add(time.Minute)}, 0.5, time.Minute},
		"if a Secret is checked later, expect the next scan":  {[]time.Time{noon.Add(time.Hour)}, 0.5, 8 * time.Minute},
		"if a Secret could not be read, expect the next scan": {[]time.Time{{}}, 0.5, 8 * time.Minute},
		"if a check is past, expect a moment":                 {[]time.Time{noon.Add(-time.Minute)}, 0.5, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, nextReconciliation(noon.Add(-2*time.Minute), every, test.checks, noon, sequence(test.random)))
		})
	}
}
