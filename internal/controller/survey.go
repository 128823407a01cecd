package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// page is how many objects one answer of a list holds.
const page = 500

// fresh is the age up to which a pod's warnings are told: older ones were told
// by whoever led before.
const fresh = time.Hour

// survey lists the pods of an opted-in namespace, past the cache, and judges
// each: which need a Secret, which miss the injection, which carry an old
// template.
func (r *reconciler) survey(ctx context.Context, ns policy.Namespace, p *place) error {
	before := p.claims
	p.claims, p.idle = map[types.UID]claim{}, map[types.UID]bool{}
	p.stale, p.missing = map[types.UID]stale{}, map[policy.Mode]int{}
	list := &corev1.PodList{}
	for {
		if err := r.live.List(ctx, list, client.InNamespace(ns.Name), client.Limit(page), client.Continue(list.Continue)); err != nil {
			p.claims = before
			return fmt.Errorf("list the pods of namespace %s: %w", ns.Name, err)
		}
		for i := range list.Items {
			pod := &list.Items[i]
			if c, known := before[pod.UID]; known {
				p.claims[pod.UID] = c // stays if the namespace's annotations turned bad
			}
			r.judge(ns, p, pod)
		}
		if list.Continue == "" {
			p.doubt()
			return nil
		}
	}
}

// doubt forgets what is worth another look, and what was said of pods that are
// gone.
func (p *place) doubt() {
	maps.DeleteFunc(p.applied, func(_, wanted string) bool { return wanted != "" })
	names := make(map[string]bool, len(p.claims))
	for _, c := range p.claims {
		names[c.pod.Name] = true
		if c.owner != nil {
			names[c.owner.Name] = true
		}
	}
	maps.DeleteFunc(p.said, func(key, _ string) bool {
		name := strings.Split(key, "/")[1]
		return !names[name] && !strings.HasPrefix(key, "Secret/")
	})
}

// judge files one pod.
func (r *reconciler) judge(ns policy.Namespace, p *place, pod *corev1.Pod) {
	_, injected := pod.Labels[policy.InjectedLabel]
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if !injected {
		if !ended && pod.DeletionTimestamp.IsZero() {
			if result := r.Engine.Inject(inject.Request{Pod: pod, Namespace: ns}); result.Reason == policy.Injected {
				p.missing[result.Mode]++
			}
		}
		return
	}
	if ended {
		delete(p.claims, pod.UID)
		p.idle[pod.UID] = true
		return
	}
	result := r.Engine.Inject(inject.Request{Pod: pod, Namespace: ns})
	if s, text := staleness(pod, result); s != nil {
		p.stale[pod.UID] = *s
		r.mark(ns, p, *s, text)
	}
	c, problem := r.claimOf(pod, ns)
	_, seen := p.claims[pod.UID]
	if problem != nil {
		p.idle[pod.UID] = !seen
		r.tell(p, about(pod), corev1.EventTypeWarning, string(policy.InvalidOverride), problem.Message)
		return
	}
	p.claims[pod.UID] = c
	if !seen && r.Clock.Since(c.created) < fresh {
		r.repeat(ns, p, pod, c)
	}
}

// repeat tells the warnings of the webhook again, as Events: those of a
// Deployment's pods went to a ReplicaSet's controller, which drops them.
func (r *reconciler) repeat(ns policy.Namespace, p *place, pod *corev1.Pod, c claim) {
	for _, w := range r.warnings(ns, pod) {
		for _, o := range subjects(pod, c) {
			r.tell(p, o, corev1.EventTypeWarning, w.Code, w.Text)
		}
	}
}

// warnings are those that the pod was injected with: the engine is asked again
// about the pod as it was before.
func (r *reconciler) warnings(ns policy.Namespace, pod *corev1.Pod) []policy.Warning {
	status, err := inject.ReadStatus(pod)
	if err != nil || status == nil || len(status.Warnings) == 0 {
		return nil
	}
	plain, err := uninjected(pod)
	if err != nil {
		return codesOf(status.Warnings)
	}
	result := r.Engine.Inject(inject.Request{Pod: plain, Namespace: ns})
	told := slices.DeleteFunc(result.Warnings, func(w policy.Warning) bool { return !slices.Contains(status.Warnings, w.Code) })
	if len(told) == 0 {
		return codesOf(status.Warnings)
	}
	return told
}

// codesOf stands in where the words cannot be found again.
func codesOf(codes []string) []policy.Warning {
	warnings := make([]policy.Warning, len(codes))
	for i, code := range codes {
		warnings[i] = policy.Warning{Code: code, Text: "given when the pod was injected; its meaning is in the documentation of warnings"}
	}
	return warnings
}

// uninjected is the pod as its author wrote it.
func uninjected(pod *corev1.Pod) (*corev1.Pod, error) {
	operations, err := inject.Uninject(pod)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(operations)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(raw)
	if err != nil {
		return nil, err
	}
	document, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	if document, err = patch.Apply(document); err != nil {
		return nil, err
	}
	plain := &corev1.Pod{}
	return plain, json.Unmarshal(document, plain)
}

// known is a mode, or the empty one for what somebody else wrote into the label.
func known(mode string) policy.Mode {
	if m := policy.Mode(mode); m.Known() {
		return m
	}
	return ""
}
