package restart

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

var (
	noon  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	limit = timing{settle: time.Minute, timeout: 15 * time.Minute}
)

// ready is an observation of a Deployment of which nothing is in the way of a
// restart for the template "new".
func ready() observation {
	return observation{
		namespace: policy.Namespace{Name: "shop", Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}},
		enabled:   true,
		workload: &workload{
			Object: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: "front", UID: "front-1", Annotations: map[string]string{policy.RestartKey: "true"},
			}},
			kind: deployment, template: &corev1.PodTemplateSpec{}, rollout: rollout{complete: true}, available: 1,
		},
		webhook:       &webhookState{since: noon.Add(-time.Hour)},
		pods:          &podSummary{stale: map[string][]string{"new": {"front-a"}}},
		templateSince: noon.Add(-time.Hour),
		injection:     inject.Result{Reason: policy.Injected},
	}
}

func annotate(o *observation, key, value string) {
	annotations := o.workload.GetAnnotations()
	annotations[key] = value
	o.workload.SetAnnotations(annotations)
}

func TestDecideCandidate(t *testing.T) {
	other := &record{kind: deployment, namespace: "shop", name: "other", uid: "other-1", template: "new", at: noon}
	for name, test := range map[string]struct {
		change  func(*observation)
		current *record
		want    decision
		waiting bool
	}{
		"if nothing is in the way, expect a restart": {func(*observation) {}, nil, decision{action: actionStart, template: "new"}, true},
		"if the namespace is not opted in, expect nothing": {
			func(o *observation) { o.enabled = false }, nil, decision{action: actionIgnore}, false,
		},
		"if the workload is gone, expect nothing": {
			func(o *observation) { o.workload = nil }, nil, decision{action: actionIgnore}, false,
		},
		"if the workload is gone in a namespace that asks, expect nothing": {
			func(o *observation) {
				o.workload, o.namespace.Annotations = nil, map[string]string{policy.RestartKey: "true"}
			}, nil, decision{action: actionIgnore}, false,
		},
		"if there is no workload and the namespace asks, expect the reason": {
			func(o *observation) {
				o.workload, o.unsupported, o.namespace.Annotations = nil, "its owner is the Job job", map[string]string{policy.RestartKey: "true"}
			}, nil, decision{action: actionRefuse, reason: "its owner is the Job job"}, false,
		},
		"if there is no workload and nothing asks, expect nothing": {
			func(o *observation) { o.workload, o.unsupported = nil, "its owner is the Job job" }, nil, decision{action: actionIgnore}, false,
		},
		"if it declines, expect nothing": {
			func(o *observation) { annotate(o, policy.RestartKey, "false") }, nil, decision{action: actionIgnore}, false,
		},
		"if it declines and its namespace asks, expect nothing": {
			func(o *observation) {
				o.namespace.Annotations = map[string]string{policy.RestartKey: "true"}
				annotate(o, policy.RestartKey, "false")
			}, nil, decision{action: actionIgnore}, false,
		},
		"if only its namespace asks, expect a restart": {
			func(o *observation) {
				o.namespace.Annotations = map[string]string{policy.RestartKey: "true"}
				o.workload.SetAnnotations(nil)
			}, nil, decision{action: actionStart, template: "new"}, true,
		},
		"if it asks with another word, expect the allowed ones": {
			func(o *observation) { annotate(o, policy.RestartKey, "maybe") }, nil,
			decision{action: actionRefuse, reason: `annotation isthmus.dev/restart-when-stale: "maybe" is not allowed; want "true" or "false"`}, false,
		},
		"if it asks with another word while another is being restarted, expect the allowed ones": {
			func(o *observation) { annotate(o, policy.RestartKey, "maybe") }, other,
			decision{action: actionRefuse, reason: `annotation isthmus.dev/restart-when-stale: "maybe" is not allowed; want "true" or "false"`}, false,
		},
		"if its namespace asks with another word, expect the allowed ones": {
			func(o *observation) {
				o.namespace.Annotations = map[string]string{policy.RestartKey: "maybe"}
				o.workload.SetAnnotations(nil)
			}, nil,
			decision{action: actionRefuse, reason: `namespace shop: annotation isthmus.dev/restart-when-stale: "maybe" is not allowed; want "true" or "false"`}, false,
		},
		"if its namespace asks with another word and it asks itself, expect a restart": {
			func(o *observation) { o.namespace.Annotations = map[string]string{policy.RestartKey: "maybe"} }, nil,
			decision{action: actionStart, template: "new"}, true,
		},
		"if there is no workload and the namespace asks with another word, expect nothing": {
			func(o *observation) {
				o.workload, o.unsupported, o.namespace.Annotations = nil, "its owner is the Job job", map[string]string{policy.RestartKey: "maybe"}
			}, nil, decision{action: actionIgnore}, false,
		},
		"if it declines while another is being restarted, expect nothing": {
			func(o *observation) { annotate(o, policy.RestartKey, "false") }, other, decision{action: actionIgnore}, false,
		},
		"if another is being restarted, expect it to wait": {func(*observation) {}, other, decision{action: actionWait}, true},
		"if another is being restarted, expect no requests": {
			func(o *observation) { o.webhook, o.pods = nil, nil }, other, decision{action: actionWait}, true,
		},
		"if it is itself being restarted, expect nothing": {
			func(*observation) {}, &record{uid: "front-1"}, decision{action: actionIgnore}, false,
		},
		"if the webhook is not observed, expect that": {
			func(o *observation) { o.webhook, o.pods = nil, nil }, nil, decision{action: actionObserveWebhook}, true,
		},
		"if the webhook is being rolled out, expect it to wait": {
			func(o *observation) { o.webhook = &webhookState{problem: "is not rolled out"} }, nil, decision{action: actionWait}, true,
		},
		"if the webhook serves the template not long enough, expect it to wait": {
			func(o *observation) { o.webhook = &webhookState{since: noon.Add(-limit.settle + time.Second)} }, nil, decision{action: actionWait}, true,
		},
		"if the webhook serves the template just long enough, expect a restart": {
			func(o *observation) { o.webhook = &webhookState{since: noon.Add(-limit.settle)} }, nil, decision{action: actionStart, template: "new"}, true,
		},
		"if the pods are not observed, expect that": {func(o *observation) { o.pods = nil }, nil, decision{action: actionObservePods}, true},
		"if no pod is stale any more, expect nothing": {
			func(o *observation) { o.pods = &podSummary{current: 3} }, nil, decision{action: actionIgnore}, false,
		},
		"if its pods were only changed by hand, expect nothing": {
			func(o *observation) { o.pods = &podSummary{current: 1, notInjected: []string{"front-b"}} }, nil, decision{action: actionIgnore}, false,
		},
		"if the template is not known in the namespace, expect it to wait": {
			func(o *observation) { o.templateSince = time.Time{} }, nil, decision{action: actionWait}, true,
		},
		"if the template is too new, expect it to wait": {
			func(o *observation) { o.templateSince = noon.Add(-limit.settle + time.Second) }, nil, decision{action: actionWait}, true,
		},
		"if the template is just old enough, expect a restart": {
			func(o *observation) { o.templateSince = noon.Add(-limit.settle) }, nil, decision{action: actionStart, template: "new"}, true,
		},
		"if it cannot be rolled, expect the reason": {
			func(o *observation) { o.workload.obstacle = "it is paused" }, nil, decision{action: actionRefuse, reason: "it is paused"}, false,
		},
		"if it was restarted for another template, expect a restart": {
			func(o *observation) { annotate(o, policy.RestartedForKey, "old") }, nil, decision{action: actionStart, template: "new"}, true,
		},
		"if another rollout is under way, expect it to be postponed": {
			func(o *observation) { o.workload.rollout = rollout{waitsFor: "1 of 3 pods are updated"} }, nil,
			decision{action: actionPostpone, template: "new", note: "is stale and asks to be restarted, and waits for the rollout that is under way: 1 of 3 pods are updated"}, true,
		},
		"if it cannot be rolled and another rollout is under way, expect the reason": {
			func(o *observation) {
				o.workload.obstacle, o.workload.rollout = "it is paused", rollout{waitsFor: "1 of 3 pods are updated"}
			}, nil, decision{action: actionRefuse, reason: "it is paused"}, false,
		},
		"if another rollout is under way and failed, expect it to be postponed": {
			func(o *observation) {
				o.workload.rollout = rollout{failed: true, waitsFor: "its progress deadline is exceeded"}
			}, nil,
			decision{action: actionPostpone, template: "new", note: "is stale and asks to be restarted, and waits for the rollout that is under way: its progress deadline is exceeded"}, true,
		},
		"if two templates are current at once, expect the same one every time": {
			func(o *observation) {
				o.pods = &podSummary{stale: map[string][]string{"new": {"front-a"}, "a-new": {"front-b"}}}
			}, nil, decision{action: actionStart, template: "a-new"}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := ready()
			test.change(&o)
			got := decideCandidate(o, test.current, limit, noon)
			assert.Equal(t, test.want, got)
			assert.Equal(t, test.waiting, got.isWaiting())
		})
	}
}

// A restart does not help if its new pods would have no identity.
func TestObstacle(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*observation)
		want   string
	}{
		"if nothing is in the way, expect nothing":        {func(*observation) {}, ""},
		"if it was restarted for another, expect nothing": {func(o *observation) { annotate(o, policy.RestartedForKey, "old") }, ""},
		"if it was restarted for this one, expect that": {
			func(o *observation) {
				annotate(o, policy.RestartedForKey, "new")
				o.workload.template.Annotations = map[string]string{policy.RestartedAtKey: "2026-03-01T11:00:00Z"}
			},
			"it was already restarted for template new, at 2026-03-01T11:00:00Z,",
		},
		"if it cannot be rolled, expect why": {func(o *observation) { o.workload.obstacle = "it is paused" }, "it is paused"},
		"if its new pods would be denied, expect their reason": {
			func(o *observation) {
				o.injection = inject.Result{Reason: policy.InvalidOverride, Denied: true, Message: "annotation isthmus.dev/delivery"}
			},
			"new pods would be refused: invalid-override: annotation isthmus.dev/delivery",
		},
		"if its new pods would be left alone, expect their reason": {
			func(o *observation) { o.injection = inject.Result{Reason: policy.NoProfile} }, "new pods would not be injected: no-profile",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := ready()
			test.change(&o)
			got := obstacle(o, "new")
			if test.want == "" {
				assert.Empty(t, got)
				return
			}
			assert.Contains(t, got, test.want)
			assert.Equal(t, decision{action: actionRefuse, reason: got}, decideCandidate(o, nil, limit, noon))
		})
	}
}

// restarted is an observation of a Deployment that was restarted for the template
// "new" and is rolled out.
func restarted() observation {
	o := ready()
	annotate(&o, policy.RestartedForKey, "new")
	o.pods = &podSummary{current: 3, stale: map[string][]string{}}
	o.webhook = nil
	return o
}

func TestDecideCurrent(t *testing.T) {
	rolling := rollout{waitsFor: "1 of 3 pods are updated"}
	for name, test := range map[string]struct {
		change func(*observation)
		age    time.Duration
		want   decision
		// note is a part of the note.
		note string
	}{
		"if it is rolled out and no pod is stale, expect it to be complete": {
			func(*observation) {}, time.Minute, decision{action: actionComplete}, "is rolled out, and 3 pods are of template new",
		},
		"if it is complete although late, expect it to be complete": {
			func(*observation) {}, time.Hour, decision{action: actionComplete}, "is rolled out",
		},
		"if it is gone, expect it to be released": {
			func(o *observation) { o.workload = nil }, time.Minute, decision{action: actionRelease, reason: "it is gone"}, "",
		},
		"if it is gone from a namespace that opted out, expect it to be released": {
			func(o *observation) { o.workload, o.enabled = nil, false }, time.Minute, decision{action: actionRelease, reason: "it is gone"}, "",
		},
		"if its namespace opted out, expect it to be released": {
			func(o *observation) { o.enabled = false }, time.Minute, decision{action: actionRelease, reason: "its namespace is no longer opted in"}, "",
		},
		"if it declines, expect it to be released": {
			func(o *observation) { annotate(o, policy.RestartKey, "false") }, time.Minute, decision{action: actionRelease, reason: "it no longer asks for a restart"}, "",
		},
		"if nothing asks any more, expect it to be released": {
			func(o *observation) { o.workload.SetAnnotations(nil) }, time.Minute, decision{action: actionRelease, reason: "it no longer asks for a restart"}, "",
		},
		"if it asks with another word, expect it to be followed": {
			func(o *observation) {
				annotate(o, policy.RestartKey, "maybe")
				o.workload.rollout = rolling
			}, time.Minute, decision{action: actionFollow}, "",
		},
		"if the pods are not observed, expect that": {
			func(o *observation) { o.pods = nil }, time.Minute, decision{action: actionObservePods}, "",
		},
		"if its rollout goes on, expect it to be followed": {
			func(o *observation) {
				o.workload.rollout = rolling
				o.pods.stale = map[string][]string{"new": {"front-a"}}
			}, time.Minute, decision{action: actionFollow}, "",
		},
		"if its rollout goes on just before the timeout, expect it to be followed": {
			func(o *observation) { o.workload.rollout = rolling }, limit.timeout - time.Second, decision{action: actionFollow}, "",
		},
		"if its rollout takes too long, expect it to be stuck": {
			func(o *observation) { o.workload.rollout = rolling }, limit.timeout,
			decision{action: actionReportStuck}, `is not rolled out: 1 of 3 pods are updated. No other workload is restarted until it is. Check its pods; roll back the change that made them fail, or set isthmus.dev/restart-when-stale: "false" on it to let the other restarts continue (after 15m0s)`,
		},
		"if its own controller gave up, expect it to be stuck at once": {
			func(o *observation) {
				o.workload.rollout = rollout{failed: true, waitsFor: "its progress deadline is exceeded"}
			},
			time.Minute, decision{action: actionReportStuck}, "is not rolled out: its progress deadline is exceeded.",
		},
		"if its new pods are stale for the same template, expect it to have failed": {
			func(o *observation) {
				o.pods.stale = map[string][]string{"new": {"front-d", "front-a", "front-c", "front-b"}}
			}, time.Minute, decision{action: actionReportFailed}, "was restarted for template new and still has stale pods: front-a and 3 others.",
		},
		"if its new pods are not injected, expect it to have failed": {
			func(o *observation) { o.pods.notInjected = []string{"front-b", "front-a"} }, time.Minute,
			decision{action: actionReportFailed}, "has pods that were not injected: [front-a front-b].",
		},
		"if its new pods are stale and it is late, expect it to have failed": {
			func(o *observation) { o.pods.stale = map[string][]string{"new": {"front-a"}} }, time.Hour,
			decision{action: actionReportFailed}, "was restarted for template new and still has stale pods: [front-a].",
		},
		"if some new pods are stale and others not injected, expect those that are not injected": {
			func(o *observation) {
				o.pods.stale = map[string][]string{"new": {"front-a"}}
				o.pods.notInjected = []string{"front-b"}
			}, time.Minute, decision{action: actionReportFailed}, "has pods that were not injected: [front-b].",
		},
		"if the restart was never written and its pods are not injected, expect the record to be discarded": {
			func(o *observation) {
				o.workload.SetAnnotations(map[string]string{policy.RestartKey: "true"})
				o.pods.notInjected = []string{"front-a"}
			}, time.Minute, decision{action: actionDiscard}, "",
		},
		"if the restart was never written and it is late, expect the record to be discarded": {
			func(o *observation) {
				annotate(o, policy.RestartedForKey, "old")
				o.pods.stale = map[string][]string{"new": {"front-a"}}
			}, time.Hour, decision{action: actionDiscard}, "",
		},
		"if its annotation was removed and no pod is stale, expect it to be complete": {
			func(o *observation) { o.workload.SetAnnotations(map[string]string{policy.RestartKey: "true"}) }, time.Minute,
			decision{action: actionComplete}, "is rolled out, and 3 pods are of template new",
		},
		"if its own controller gave up and it is late, expect it to be stuck": {
			func(o *observation) {
				o.workload.rollout = rollout{failed: true, waitsFor: "its progress deadline is exceeded"}
			}, time.Hour, decision{action: actionReportStuck}, "is not rolled out: its progress deadline is exceeded.",
		},
		"if the restart was never written, expect the record to be discarded": {
			func(o *observation) {
				annotate(o, policy.RestartedForKey, "old")
				o.pods.stale = map[string][]string{"new": {"front-a"}}
			}, time.Minute, decision{action: actionDiscard}, "",
		},
		"if the template changed, expect the webhook to be observed": {
			func(o *observation) { o.pods.stale = map[string][]string{"newer": {"front-a"}} }, time.Minute, decision{action: actionObserveWebhook}, "",
		},
		"if the template changed and the webhook serves it, expect a restart for it": {
			func(o *observation) {
				o.workload.rollout = rolling
				o.pods.stale = map[string][]string{"newer": {"front-a"}}
				o.webhook = &webhookState{since: noon.Add(-time.Hour)}
			}, time.Minute, decision{action: actionStart, template: "newer"}, "",
		},
		"if the template changed and pods wait for the one before, expect it to be followed": {
			func(o *observation) {
				o.workload.rollout = rolling
				o.pods.stale = map[string][]string{"newer": {"front-a"}, "new": {"front-b"}}
			}, time.Minute, decision{action: actionFollow}, "",
		},
		"if the template changed and the webhook is being rolled out, expect it to be followed": {
			func(o *observation) {
				o.workload.rollout = rolling
				o.pods.stale = map[string][]string{"newer": {"front-a"}}
				o.webhook = &webhookState{problem: "is not rolled out"}
			}, time.Minute, decision{action: actionFollow}, "",
		},
		"if the template changed a moment ago, expect it to be followed": {
			func(o *observation) {
				o.workload.rollout = rolling
				o.pods.stale = map[string][]string{"newer": {"front-a"}}
				o.webhook = &webhookState{since: noon.Add(-time.Hour)}
				o.templateSince = noon.Add(-time.Second)
			}, time.Minute, decision{action: actionFollow}, "",
		},
		"if the template changed and a restart would not help, expect the reason and that it is followed": {
			func(o *observation) {
				o.workload.rollout, o.workload.obstacle = rolling, "it is paused"
				o.pods.stale = map[string][]string{"newer": {"front-a"}}
				o.webhook = &webhookState{since: noon.Add(-time.Hour)}
			}, time.Minute, decision{action: actionFollow, refused: "it is paused"}, "",
		},
		"if the template changed, a restart would not help and it is late, expect the reason and that it is stuck": {
			func(o *observation) {
				o.workload.rollout, o.workload.obstacle = rolling, "it is paused"
				o.pods.stale = map[string][]string{"newer": {"front-a"}}
				o.webhook = &webhookState{since: noon.Add(-time.Hour)}
			}, time.Hour, decision{action: actionReportStuck, refused: "it is paused"}, "is not rolled out: 1 of 3 pods are updated.",
		},
		"if the template changed, a restart would not help and it is rolled out, expect the reason and that it has failed": {
			func(o *observation) {
				o.workload.obstacle = "it is paused"
				o.pods.stale = map[string][]string{"newer": {"front-a"}}
				o.webhook = &webhookState{since: noon.Add(-time.Hour)}
			}, time.Minute, decision{action: actionReportFailed, refused: "it is paused"}, "was restarted for template new and still has stale pods: [front-a].",
		},
		"if the template changed and the restart for it was rejected, expect it to be followed": {
			func(o *observation) {
				o.workload.rollout, o.rejected = rolling, true
				o.pods.stale = map[string][]string{"newer": {"front-a"}}
				o.webhook = &webhookState{since: noon.Add(-time.Hour)}
			}, time.Minute, decision{action: actionFollow}, "",
		},
		"if the template changed, its restart was rejected and it is rolled out, expect it to have failed": {
			func(o *observation) {
				o.rejected = true
				o.pods.stale = map[string][]string{"newer": {"front-a"}}
				o.webhook = &webhookState{since: noon.Add(-time.Hour)}
			}, time.Minute, decision{action: actionReportFailed}, "still has stale pods: [front-a].",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := restarted()
			test.change(&o)
			got := decideCurrent(o, record{uid: "front-1", template: "new", at: noon.Add(-test.age)}, limit, noon)
			if test.note != "" {
				assert.Contains(t, got.note, test.note)
				got.note = ""
			}
			assert.Equal(t, test.want, got)
		})
	}
}

// The timeout is not the cause when the workload's own controller gave up.
func TestStuckNoteNamesTheTimeoutUnlessTheRolloutFailed(t *testing.T) {
	for _, failed := range []bool{false, true} {
		o := restarted()
		o.workload.rollout = rollout{failed: failed, waitsFor: "1 of 3 pods are updated"}
		d := decideCurrent(o, record{uid: "front-1", template: "new", at: noon.Add(-time.Hour)}, limit, noon)
		assert.Equal(t, actionReportStuck, d.action)
		assert.Equal(t, !failed, strings.HasSuffix(d.note, "(after 15m0s)"), d.note)
	}
}

func TestWebhookStateSettles(t *testing.T) {
	var s webhookState
	assert.False(t, s.isSettled(limit, noon), "it was never observed")
	s = s.next("", noon)
	assert.False(t, s.isSettled(limit, noon))
	s = s.next("", noon.Add(30*time.Second))
	assert.False(t, s.isSettled(limit, noon.Add(59*time.Second)))
	assert.True(t, s.isSettled(limit, noon.Add(time.Minute)), "the time counts from the first check without a problem")
	s = s.next("is not rolled out", noon.Add(time.Minute))
	assert.False(t, s.isSettled(limit, noon.Add(time.Hour)))
	s = s.next("", noon.Add(time.Hour))
	assert.False(t, s.isSettled(limit, noon.Add(time.Hour)), "the time counts from then on")
	assert.True(t, s.isSettled(limit, noon.Add(time.Hour+time.Minute)))
}

func TestDecidePatch(t *testing.T) {
	deployments := appsv1.Resource("deployments")
	for name, test := range map[string]struct {
		err  error
		want patchOutcome
	}{
		"if it is accepted, expect a restart":        {nil, patchAccepted},
		"if a policy refuses, expect a refusal":      {apierrors.NewForbidden(deployments, "front", errors.New("policy")), patchRefused},
		"if it is invalid, expect a refusal":         {apierrors.NewInvalid(appsv1.SchemeGroupVersion.WithKind("Deployment").GroupKind(), "front", nil), patchRefused},
		"if the workload changed, expect no restart": {apierrors.NewConflict(deployments, "front", errors.New("changed")), patchOutdated},
		"if the workload is gone, expect no restart": {apierrors.NewNotFound(deployments, "front"), patchOutdated},
		"if the connection broke, expect to be unsure": {
			errors.New("connection reset"), patchUnknown,
		},
		"if the API server failed, expect to be unsure": {apierrors.NewInternalError(errors.New("etcd")), patchUnknown},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, decidePatch(test.err)) })
	}
}

func TestPodsAreSortedByTheirInjection(t *testing.T) {
	pod := func(name string, injected bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if injected {
			p.Labels = map[string]string{policy.InjectedLabel: "sidecar"}
		}
		return p
	}
	stale := inject.Result{Reason: policy.AlreadyInjected, Template: "new", Warnings: []policy.Warning{{Code: inject.StaleTemplate}}}
	s := &podSummary{stale: map[string][]string{}}
	assert.Empty(t, s.template())
	s.add(pod("current", true), inject.Result{Reason: policy.AlreadyInjected, Template: "new"})
	s.add(pod("stale", true), stale)
	s.add(pod("changed by hand", true), inject.Result{Reason: policy.Conflict})
	s.add(pod("bare", false), inject.Result{Reason: policy.Injected})
	assert.Equal(t, &podSummary{current: 1, notInjected: []string{"bare"}, stale: map[string][]string{"new": {"stale"}}}, s)
	assert.Equal(t, "new", s.template())
}
