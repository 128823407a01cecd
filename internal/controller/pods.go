package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// pageSize is how many objects one answer of a list holds.
const pageSize = 500

// syncPods brings what is remembered of the pods up to date: by a scan when one is
// due, otherwise by reading the pods that are new. They are read also when the scan
// fails: one pod that cannot be decoded makes the whole list fail.
func (r *reconciler) syncPods(ctx context.Context, ns policy.Namespace, s *namespaceState) error {
	basis := scanBasisOf(ns)
	if !needsScan(s.scanBasis, basis, s.scanned, r.scanInterval(), r.Clock.Now()) {
		return r.readNewPods(ctx, ns, s)
	}
	if err := r.scanPods(ctx, ns, s); err != nil {
		if s.scanned.IsZero() {
			return err
		}
		return errors.Join(err, r.readNewPods(ctx, ns, s))
	}
	s.rescanned, s.scanBasis = !s.scanned.IsZero(), basis
	s.scanned = scanTime(!s.rescanned, r.scanInterval(), r.Clock.Now(), r.Random)
	return nil
}

// scanPods lists the pods of an opted-in namespace, past the cache, and classifies
// each. A list that fails changes nothing that is remembered.
func (r *reconciler) scanPods(ctx context.Context, ns policy.Namespace, s *namespaceState) error {
	before := s.podState
	s.podState = newPodState()
	list := &corev1.PodList{}
	for {
		if err := r.live.List(ctx, list, client.InNamespace(ns.Name), client.Limit(pageSize), client.Continue(list.Continue)); err != nil {
			s.podState = before
			return fmt.Errorf("list the pods of namespace %s: %w", ns.Name, err)
		}
		for i := range list.Items {
			r.classifyPod(ns, s, &list.Items[i], before.claims)
		}
		if list.Continue == "" {
			s.forgetApplied()
			return nil
		}
	}
}

// readNewPods reads the injected pods that are new, and forgets those that are
// gone. One that cannot be read does not keep it from the others.
func (r *reconciler) readNewPods(ctx context.Context, ns policy.Namespace, s *namespaceState) error {
	present, err := r.injectedPods(ctx, ns.Name)
	if err != nil {
		return err
	}
	maps.DeleteFunc(s.claims, func(uid types.UID, _ claim) bool { _, exists := present[uid]; return !exists })
	maps.DeleteFunc(s.idle, func(uid types.UID, _ string) bool { _, exists := present[uid]; return !exists })
	maps.DeleteFunc(s.unclear, func(uid types.UID, _ bool) bool { _, exists := present[uid]; return !exists })
	maps.DeleteFunc(s.stale, func(uid types.UID, _ StalePod) bool { _, exists := present[uid]; return !exists })
	var errs []error
	for uid, name := range present {
		if _, known := s.claims[uid]; known || s.idle[uid] != "" {
			continue
		}
		pod := &corev1.Pod{}
		err := r.live.Get(ctx, client.ObjectKey{Namespace: ns.Name, Name: name}, pod)
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("read pod %s/%s: %w", ns.Name, name, err))
			continue
		}
		r.classifyPod(ns, s, pod, s.claims)
	}
	return errors.Join(errs...)
}

// injectedPods lists the injected pods of a namespace from the cache.
func (r *reconciler) injectedPods(ctx context.Context, namespace string) (map[types.UID]string, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	if err := r.cached.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the injected pods of namespace %s: %w", namespace, err)
	}
	present := make(map[types.UID]string, len(list.Items))
	for i := range list.Items {
		present[list.Items[i].UID] = list.Items[i].Name
	}
	return present, nil
}

// classifyPod decides on a pod, remembers what it needs, and reports. before are the
// claims so far.
func (r *reconciler) classifyPod(ns policy.Namespace, s *namespaceState, pod *corev1.Pod, before map[types.UID]claim) {
	o := podObservation{pod: pod, namespace: ns}
	o.before, o.isKnown = before[pod.UID]
	if needsInjectionResult(pod) {
		o.result = r.Engine.Inject(inject.Request{Pod: pod, Namespace: ns})
	}
	if isInjected(pod) {
		o.edge = r.findEdge(ns, pod)
	}
	d := decidePod(o, r.rules, r.Clock.Now())
	if d.class == podMissing {
		s.missing[d.mode]++
	}
	if d.isClaiming {
		s.claims[pod.UID] = d.claim
	}
	if d.isIdle {
		s.idle[pod.UID] = pod.Name
	}
	if d.isUnclear {
		s.unclear[pod.UID] = true
	}
	if d.stale != nil {
		s.stale[pod.UID] = *d.stale
	}
	for _, e := range d.events {
		s.events.Record(e)
	}
	if d.repeatsWarnings {
		r.repeatWarnings(ns, s, pod, d.claim)
	}
}

// findEdge finds the edge in an injected pod, by its profile and not by the status
// annotation, which the pod's author may have written. It returns nil when there is no
// single edge.
func (r *reconciler) findEdge(ns policy.Namespace, pod *corev1.Pod) *inject.Edge {
	edge, reason, _ := r.Engine.FindEdge(inject.Request{Pod: pod, Namespace: ns})
	if reason != "" {
		return nil
	}
	return &edge
}
