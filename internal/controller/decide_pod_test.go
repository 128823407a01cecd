package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// injectedPod is a pod of namespace edge in mode sidecar, of a ReplicaSet.
func injectedPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "edge", Name: "front", UID: "front-1", CreationTimestamp: metav1.NewTime(noon.Add(-time.Minute)),
			Labels:          map[string]string{policy.InjectedLabel: "sidecar"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "front-abc", UID: "rs-1", Controller: ptr.To(true)}},
		},
		Spec: corev1.PodSpec{ServiceAccountName: "emissary", Containers: []corev1.Container{
			{Name: "ambassador", Env: []corev1.EnvVar{{Name: "AMBASSADOR_ID"}, {Name: "AMBASSADOR_ID", Value: "public"}}},
		}},
	}
}

func TestDecidePod(t *testing.T) {
	current := inject.Result{Reason: policy.AlreadyInjected, Template: "new"}
	stale := inject.Result{Reason: policy.AlreadyInjected, Template: "new", Warnings: []policy.Warning{{Code: inject.StaleTemplate, Text: "its template is old"}}}
	for name, test := range map[string]struct {
		change  func(*podObservation)
		class   podClass
		mode    policy.Mode
		stale   string
		events  []string
		repeats bool
	}{
		"if it is injected and new, expect its claim and its warnings":    {func(*podObservation) {}, podClaiming, "", "", nil, true},
		"if it is injected and known, expect its claim":                   {func(o *podObservation) { o.isKnown = true }, podClaiming, "", "", nil, false},
		"if it is injected and old, expect its claim":                     {func(o *podObservation) { setAge(o, time.Hour) }, podClaiming, "", "", nil, false},
		"if it is injected and about to end, expect its claim":            {func(o *podObservation) { o.pod.DeletionTimestamp = &metav1.Time{Time: noon} }, podClaiming, "", "", nil, true},
		"if it is injected and succeeded, expect it to have ended":        {func(o *podObservation) { o.pod.Status.Phase = corev1.PodSucceeded }, podEnded, "", "", nil, false},
		"if it is injected and failed, expect it to have ended":           {func(o *podObservation) { o.pod.Status.Phase = corev1.PodFailed }, podEnded, "", "", nil, false},
		"if it is stale and ended, expect it to have ended":               {func(o *podObservation) { o.result = stale; o.pod.Status.Phase = corev1.PodFailed }, podEnded, "", "", nil, false},
		"if it is not injected and would not be, expect it to be ignored": {func(o *podObservation) { o.pod.Labels = nil; o.result = inject.Result{Reason: policy.NoProfile} }, podIgnored, "", "", nil, false},
		"if it is not injected and would be, expect it to be missing":     {func(o *podObservation) { missing(o) }, podMissing, policy.Sidecar, "", nil, false},
		"if it is not injected and ended, expect it to be ignored":        {func(o *podObservation) { missing(o); o.pod.Status.Phase = corev1.PodSucceeded }, podIgnored, "", "", nil, false},
		"if it is not injected and about to end, expect it to be ignored": {func(o *podObservation) { missing(o); o.pod.DeletionTimestamp = &metav1.Time{Time: noon} }, podIgnored, "", "", nil, false},
		"if its annotations are invalid, expect an Event": {
			func(o *podObservation) { o.pod.Annotations = map[string]string{policy.SecretNameKey: "theirs"} }, podInvalid, "", "",
			[]string{"Warning invalid-override Pod/front"}, false,
		},
		"if its namespace's annotations are invalid, expect an Event": {
			func(o *podObservation) { o.namespace.Annotations = map[string]string{policy.DeliveryKey: "pigeon"} }, podInvalid, "", "",
			[]string{"Warning invalid-override Pod/front"}, false,
		},
		"if it is stale, expect Events for it and its owner": {
			func(o *podObservation) { o.result = stale }, podClaiming, "", "new",
			[]string{"Warning stale-template Pod/front", "Warning stale-template ReplicaSet/front-abc"}, true,
		},
		"if it is stale and has no owner, expect one Event": {
			func(o *podObservation) { o.result = stale; o.pod.OwnerReferences = nil }, podClaiming, "", "new", []string{"Warning stale-template Pod/front"}, true,
		},
		"if it is stale and invalid, expect Events about both": {
			func(o *podObservation) {
				o.result = stale
				o.pod.Annotations = map[string]string{policy.SecretNameKey: "theirs"}
			}, podInvalid, "", "new",
			[]string{"Warning stale-template Pod/front", "Warning stale-template ReplicaSet/front-abc", "Warning invalid-override Pod/front"}, false,
		},
		"if it was changed by hand, expect it to be stale without an Event": {
			func(o *podObservation) { o.result = inject.Result{Reason: policy.Conflict} }, podClaiming, "", "unknown", nil, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := podObservation{pod: injectedPod(), namespace: policy.Namespace{Name: "edge"}, result: current}
			test.change(&o)
			d := decidePod(o, testRules(), noon)
			assert.Equal(t, test.class, d.class)
			assert.Equal(t, test.mode, d.mode)
			assert.Equal(t, test.repeats, d.repeatsWarnings)
			var got []string
			for _, e := range d.events {
				got = append(got, fmt.Sprintf("%s %s %s/%s", e.Type, e.Reason, e.Regarding.Kind, e.Regarding.Name))
			}
			assert.Equal(t, test.events, got)
			switch test.stale {
			case "":
				assert.Nil(t, d.stale)
			case "unknown":
				assert.Empty(t, d.stale.Template)
			default:
				assert.Equal(t, test.stale, d.stale.Template)
				assert.Equal(t, policy.Sidecar, d.stale.Mode)
			}
		})
	}
}

// A pod keeps its claim, and with it its Secret, when annotations become invalid.
func TestPodsKeepTheirClaim(t *testing.T) {
	invalid := func(o *podObservation) { o.namespace.Annotations = map[string]string{policy.DeliveryKey: "pigeon"} }
	for name, test := range map[string]struct {
		change  func(*podObservation)
		isKnown bool
		// account is the service account of the claim afterwards; empty when there is none.
		account string
		isIdle  bool
	}{
		"if it is new, expect its claim":                                 {func(*podObservation) {}, false, "emissary", false},
		"if it is known, expect the present claim":                       {func(*podObservation) {}, true, "emissary", false},
		"if it is new and invalid, expect no claim and no further reads": {invalid, false, "", true},
		"if it is known and has become invalid, expect the claim before": {invalid, true, "former", false},
		"if it is new and ended, expect no claim and no further reads":   {func(o *podObservation) { o.pod.Status.Phase = corev1.PodFailed }, false, "", true},
		"if it is known and has ended, expect no claim":                  {func(o *podObservation) { o.pod.Status.Phase = corev1.PodSucceeded }, true, "", true},
		"if it is not injected, expect no claim":                         {func(o *podObservation) { o.pod.Labels = nil }, false, "", false},
		"if it misses the injection, expect no claim":                    {missing, false, "", false},
		"if it is known and its label was removed, expect no claim":      {func(o *podObservation) { o.pod.Labels = nil }, true, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			o := podObservation{
				pod: injectedPod(), namespace: policy.Namespace{Name: "edge"}, result: inject.Result{Reason: policy.AlreadyInjected}, isKnown: test.isKnown,
			}
			if test.isKnown {
				o.before = podClaim("front", "former", time.Minute)
			}
			test.change(&o)
			d := decidePod(o, testRules(), noon)
			assert.Equal(t, test.account != "", d.isClaiming)
			assert.Equal(t, test.account, d.claim.serviceAccount)
			assert.Equal(t, test.isIdle, d.isIdle)
		})
	}
}

func setAge(o *podObservation, age time.Duration) {
	o.pod.CreationTimestamp = metav1.NewTime(noon.Add(-age))
}

// missing makes the pod one that would be injected.
func missing(o *podObservation) {
	o.pod.Labels = nil
	o.result = inject.Result{Reason: policy.Injected, Mode: policy.Sidecar}
}

// A pod that never had a claim holds a Secret nevertheless, unless it is ambient.
func TestInvalidPodIsUnclear(t *testing.T) {
	for name, test := range map[string]struct {
		mode    policy.Mode
		isKnown bool
		valid   bool
		want    bool
	}{
		"if its annotations are valid, expect its claim":   {mode: policy.Sidecar, valid: true},
		"if they are invalid, expect it to be unclear":     {mode: policy.Sidecar, want: true},
		"if it has a claim already, expect that":           {mode: policy.Sidecar, isKnown: true},
		"if its mode has no certificate, expect no Secret": {mode: policy.Ambient},
	} {
		t.Run(name, func(t *testing.T) {
			pod := injectedPod()
			pod.Labels[policy.InjectedLabel] = string(test.mode)
			if !test.valid {
				pod.Annotations = map[string]string{policy.SecretNameKey: "theirs"}
			}
			d := decidePod(podObservation{pod: pod, namespace: policy.Namespace{Name: "edge"}, isKnown: test.isKnown}, testRules(), noon)
			assert.Equal(t, test.want, d.isUnclear)
		})
	}
}

func TestPodsThatNeedTheEngine(t *testing.T) {
	deleted := &metav1.Time{Time: noon}
	for name, test := range map[string]struct {
		injected, deleted bool
		phase             corev1.PodPhase
		want              bool
	}{
		"if it is injected, expect it":                   {true, false, corev1.PodRunning, true},
		"if it is injected and about to end, expect it":  {true, true, corev1.PodRunning, true},
		"if it is injected and ended, expect nothing":    {true, false, corev1.PodSucceeded, false},
		"if it is not injected, expect it":               {false, false, corev1.PodRunning, true},
		"if it is not injected and ends, expect nothing": {false, true, corev1.PodRunning, false},
		"if it is not injected and ended, expect none":   {false, false, corev1.PodFailed, false},
	} {
		t.Run(name, func(t *testing.T) {
			pod := injectedPod()
			pod.Status.Phase = test.phase
			if !test.injected {
				pod.Labels = nil
			}
			if test.deleted {
				pod.DeletionTimestamp = deleted
			}
			assert.Equal(t, test.want, needsInjectionResult(pod))
		})
	}
}

func TestClaimComesFromThePod(t *testing.T) {
	edge := &inject.Edge{Container: 0, Secret: patches.SecretFacts{MissesChanges: true, Selectors: patches.Selectors{SingleNamespace: "ALONE"}}}
	c, problem := claimOf(injectedPod(), policy.Namespace{Name: "edge"}, edge, testRules())
	assert.Nil(t, problem)
	assert.Equal(t, "emissary", c.serviceAccount)
	assert.Equal(t, policy.Sidecar, c.mode)
	assert.Equal(t, inject.Variable{Value: "public"}, c.id)
	assert.Equal(t, edge.Secret, c.secret)
	assert.True(t, c.seesAll)
	assert.Equal(t, "front-abc", c.owner.Name)
	assert.Equal(t, "istio-certs", c.options.SecretName)

	pod := injectedPod()
	pod.Spec.ServiceAccountName, pod.Labels[policy.InjectedLabel] = "", "anything"
	pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: "ALONE", Value: "yes"})
	c, _ = claimOf(pod, policy.Namespace{Name: "edge"}, edge, testRules())
	assert.False(t, c.seesAll, "it is limited to its namespace")
	c, _ = claimOf(pod, policy.Namespace{Name: "edge"}, nil, testRules())
	assert.Empty(t, c.id, "no edge was recognised, so none of the variables counts")
	assert.Equal(t, "default", c.serviceAccount)
	assert.Empty(t, c.mode, "a label that someone else wrote is no mode")
}

func TestStaleNoteSaysHowToRestart(t *testing.T) {
	asking := policy.Namespace{Name: "edge", Annotations: map[string]string{policy.RestartKey: "true"}}
	for name, test := range map[string]struct {
		ns       policy.Namespace
		restarts bool
		want     string
	}{
		"if restarts are on, expect the annotation":              {policy.Namespace{Name: "edge"}, true, `, or have the controller do so: isthmus.dev/restart-when-stale: "true" on the workload or the namespace`},
		"if restarts are off, expect value and annotation":       {policy.Namespace{Name: "edge"}, false, `set the chart's value controller.restartStale.enabled, and isthmus.dev/restart-when-stale: "true"`},
		"if restarts are off and it asks, expect that and value": {asking, false, "namespace edge asks the controller to do so (isthmus.dev/restart-when-stale), which is off: set the chart's value controller.restartStale.enabled"},
	} {
		t.Run(name, func(t *testing.T) {
			r := testRules()
			r.restarts = test.restarts
			list := staleEvents(StalePod{Template: "new"}, "its template is old", test.ns, r)
			assert.Len(t, list, 1)
			assert.Contains(t, list[0].Note, "its template is old; restart its workload (kubectl rollout restart)")
			assert.Contains(t, list[0].Note, test.want)
		})
	}
}
