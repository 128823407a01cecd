package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// consider restarts the workload of a stale pod if it asks and nothing is in the
// way, a restart that is under way above all. One that asks and may be restarted
// later is put among those that wait.
func (q *restarter) consider(ctx context.Context, c candidate, under *record) (begun bool, err error) {
	ns, enabled, err := q.namespace(ctx, c.pod.Namespace)
	if err != nil || !enabled {
		return false, err
	}
	kind, name, why, err := ownerOf(ctx, q.Kube, ns.Name, c.owner)
	if err != nil {
		return false, ignoreNotFound(err)
	}
	if kind == "" {
		// There is no workload whose annotation could ask or decline.
		if asks, _ := policy.WantsRestart(nil, ns); asks {
			q.refuse(c.subject(), why)
		}
		return false, nil
	}
	w, err := readWorkload(ctx, q.Kube, kind, ns.Name, name)
	if err != nil {
		return false, ignoreNotFound(err)
	}
	asks, problem := policy.WantsRestart(w.GetAnnotations(), ns)
	if problem != "" {
		q.refuse(w.reference(), problem)
	}
	if !asks {
		return false, nil
	}
	if under != nil && under.uid == w.GetUID() {
		return false, nil
	}
	q.waiting[c.key] = w.String()
	if under != nil {
		return false, nil
	}
	if !q.isServed(ctx) {
		if q.unserved != "" {
			q.log.V(1).Info("no restarts while the webhook may serve another template", "why", q.unserved)
		}
		return false, nil
	}
	p, err := q.judgePods(ctx, ns, w)
	if err != nil {
		return false, err
	}
	template := p.template()
	if template == "" {
		delete(q.waiting, c.key) // another look at the namespace will see it too
		return false, nil
	}
	if !q.settled(ns.Name, template) {
		return false, nil
	}
	if why := q.obstacle(ns, w, template); why != "" {
		delete(q.waiting, c.key)
		q.refuse(w.reference(), why)
		return false, nil
	}
	if !w.rollout.complete {
		q.about(w.reference(), corev1.EventTypeWarning, EventRestartPostponed, template,
			"is stale and asks to be restarted, and waits for the rollout that is under way: "+w.rollout.why)
		return false, nil
	}
	return q.begin(ctx, w, template, nil)
}

// subject is what an Event about a candidate without a workload is about.
func (c candidate) subject() *corev1.ObjectReference {
	if c.owner != nil {
		return ownerReference(c.pod.Namespace, c.owner)
	}
	return podReference(c.stale)
}

// obstacle says why a workload cannot be restarted for a template; empty where it
// can.
func (q *restarter) obstacle(ns policy.Namespace, w *workload, template string) string {
	switch {
	case w.unfit != "":
		return w.unfit
	case w.restartedFor() == template:
		return fmt.Sprintf("it was restarted for template %s already, at %s, and it has stale pods all the same; see what the webhook says of them, and restart it by hand", template, w.template.Annotations[RestartedAt])
	}
	// What a restart would bring: nobody is served by an edge without its identity.
	result := q.Engine.Inject(inject.Request{Pod: &corev1.Pod{ObjectMeta: w.template.ObjectMeta, Spec: w.template.Spec}, Namespace: ns})
	switch {
	case result.Denied:
		return fmt.Sprintf("new pods would be refused: %s: %s", result.Reason, result.Message)
	case result.Reason != policy.Injected:
		return fmt.Sprintf("new pods would not be injected: %s %s", result.Reason, result.Message)
	}
	return ""
}

// podsOf is what the pods of a workload are.
type podsOf struct {
	fresh int
	// plain are not injected.
	plain []string
	// old are those with another template than the current one, by that one's hash.
	old map[string][]string
}

// template is the current one; empty where no pod is stale.
func (p podsOf) template() string {
	if len(p.old) == 0 {
		return ""
	}
	return slices.Min(slices.Collect(maps.Keys(p.old)))
}

// judgePods reads the pods of a workload, past the cache, and judges each.
func (q *restarter) judgePods(ctx context.Context, ns policy.Namespace, w *workload) (podsOf, error) {
	found := podsOf{old: map[string][]string{}}
	sets := map[types.UID]bool{} // whether a ReplicaSet is the workload's
	list := &corev1.PodList{}
	for {
		if err := q.live.List(ctx, list, client.InNamespace(ns.Name), client.MatchingLabelsSelector{Selector: w.selector}, client.Limit(page), client.Continue(list.Continue)); err != nil {
			return found, fmt.Errorf("list the pods of %s: %w", w, err)
		}
		for i := range list.Items {
			pod := &list.Items[i]
			if !pod.DeletionTimestamp.IsZero() || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
				continue
			}
			mine, err := q.owns(ctx, w, metav1.GetControllerOf(pod), sets)
			if err != nil {
				return found, err
			}
			if mine {
				found.add(pod, q.Engine.Inject(inject.Request{Pod: pod, Namespace: ns}))
			}
		}
		if list.Continue == "" {
			return found, nil
		}
	}
}

func (p *podsOf) add(pod *corev1.Pod, result inject.Result) {
	if _, injected := pod.Labels[policy.InjectedLabel]; !injected {
		p.plain = append(p.plain, pod.Name)
		return
	}
	s, _ := staleness(pod, result)
	switch {
	case s == nil:
		p.fresh++
	case s.template != "":
		p.old[s.template] = append(p.old[s.template], pod.Name)
	}
}

// owns reports whether a pod's controller is the workload, or a ReplicaSet of it.
func (q *restarter) owns(ctx context.Context, w *workload, owner *metav1.OwnerReference, sets map[types.UID]bool) (bool, error) {
	if owner == nil || w.kind != deployment {
		return owner != nil && owner.UID == w.GetUID(), nil
	}
	if mine, known := sets[owner.UID]; known {
		return mine, nil
	}
	rs, err := q.Kube.AppsV1().ReplicaSets(w.GetNamespace()).Get(ctx, owner.Name, metav1.GetOptions{})
	if err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("read ReplicaSet %s/%s: %w", w.GetNamespace(), owner.Name, err)
	}
	above := metav1.GetControllerOf(rs)
	sets[owner.UID] = above != nil && above.UID == w.GetUID()
	return sets[owner.UID], nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
