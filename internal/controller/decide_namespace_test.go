package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestDecideNamespace(t *testing.T) {
	for name, test := range map[string]struct {
		o    namespaceObservation
		want namespaceAction
	}{
		"if it is left out, expect nothing":                          {namespaceObservation{isLeftOut: true, isReady: true, isOptedIn: true}, actionLeaveOut},
		"if it is left out and opted out, expect nothing":            {namespaceObservation{isLeftOut: true, isReady: true, injectedPods: ptr.To(0), live: &liveNamespace{}}, actionLeaveOut},
		"if the mesh is not known, expect to wait for it":            {namespaceObservation{}, actionAwaitMesh},
		"if it is opted in, expect its edges to be reconciled":       {namespaceObservation{isReady: true, isOptedIn: true}, actionReconcile},
		"if it is not opted in, expect its pods to be counted":       {namespaceObservation{isReady: true}, actionCountPods},
		"if edge pods are left, expect to wait for the last":         {namespaceObservation{isReady: true, injectedPods: ptr.To(1)}, actionAwaitLastPod},
		"if the cache knows no edge pod, expect the API server":      {namespaceObservation{isReady: true, injectedPods: ptr.To(0)}, actionAskAPIServer},
		"if the API server knows an edge pod, expect nothing":        {namespaceObservation{isReady: true, injectedPods: ptr.To(0), live: &liveNamespace{hasInjectedPods: true}}, actionAwaitCache},
		"if the API server knows a label, expect nothing":            {namespaceObservation{isReady: true, injectedPods: ptr.To(0), live: &liveNamespace{isOptedIn: true}}, actionAwaitCache},
		"if no edge pod is left, expect it to be cleaned up":         {namespaceObservation{isReady: true, injectedPods: ptr.To(0), live: &liveNamespace{}}, actionCleanUp},
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

func TestNeedsScan(t *testing.T) {
	const every = 10 * time.Minute
	before := policy.Namespace{Name: "edge", Labels: map[string]string{"a": "1", "b": "2"}, Annotations: map[string]string{policy.ModeKey: "sidecar"}}
	for name, test := range map[string]struct {
		now   policy.Namespace
		after time.Duration
		want  bool
	}{
		"if nothing changed, expect none":          {before, time.Minute, false},
		"if an interval has passed, expect a scan": {before, every, true},
		"if an annotation changed, expect a scan": {
			policy.Namespace{Name: "edge", Labels: before.Labels, Annotations: map[string]string{policy.ModeKey: "certs"}}, time.Minute, true,
		},
		"if an annotation was removed, expect a scan": {policy.Namespace{Name: "edge", Labels: before.Labels}, time.Minute, true},
		"if a label changed, expect a scan": {
			policy.Namespace{Name: "edge", Labels: map[string]string{"a": "1", "b": "3"}, Annotations: before.Annotations}, time.Minute, true,
		},
		"if the same keys are in another order, expect none": {
			policy.Namespace{Name: "edge", Labels: map[string]string{"b": "2", "a": "1"}, Annotations: before.Annotations}, time.Minute, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, needsScan(scanBasisOf(before), scanBasisOf(test.now), noon, every, noon.Add(test.after)))
		})
	}
	assert.True(t, needsScan("", scanBasisOf(before), time.Time{}, every, noon), "nothing was scanned")
}

func TestDesireOfANamespace(t *testing.T) {
	for name, test := range map[string]struct {
		annotations map[string]string
		isValid     bool
		accounts    []string
		tlsContext  bool
	}{
		"if it has no annotations, expect nothing":        {nil, true, nil, false},
		"if it names a service account, expect its claim": {map[string]string{policy.ServiceAccountKey: "emissary"}, true, []string{"emissary"}, false},
		"if it requests a TLSContext, expect that":        {map[string]string{policy.TLSContextKey: "true"}, true, nil, true},
		"if an annotation is invalid, expect no claim and no TLSContext": {
			map[string]string{policy.ServiceAccountKey: "emissary", policy.TLSContextKey: "true", policy.DeliveryKey: "pigeon"}, false, nil, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := desireOf(policy.Namespace{Name: "edge", Annotations: test.annotations}, testRules())
			assert.Equal(t, test.isValid, d.isValid)
			var accounts []string
			for _, c := range d.claims {
				accounts = append(accounts, c.serviceAccount)
				assert.Empty(t, c.uid, "it is no pod's")
				assert.Equal(t, "istio-certs", c.options.SecretName)
			}
			assert.Equal(t, test.accounts, accounts)
			if test.isValid {
				assert.Equal(t, test.tlsContext, d.options.TLSContext != "")
			}
		})
	}
}
