package restart

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// pageSize is how many objects one answer of a list holds.
const pageSize = 500

// summarizePods reads the pods of a workload, past the cache, and sorts them.
func (r *Restarter) summarizePods(ctx context.Context, ns policy.Namespace, w *workload) (*podSummary, error) {
	summary := &podSummary{stale: map[string][]string{}}
	replicaSets := map[types.UID]bool{}
	list := &corev1.PodList{}
	for {
		if err := r.Pods.List(ctx, list, client.InNamespace(ns.Name), client.MatchingLabelsSelector{Selector: w.selector}, client.Limit(pageSize), client.Continue(list.Continue)); err != nil {
			return nil, fmt.Errorf("list the pods of %s: %w", w, err)
		}
		for i := range list.Items {
			pod := &list.Items[i]
			if !pod.DeletionTimestamp.IsZero() || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
				continue
			}
			isOf, err := isPodOf(ctx, r.Kube, w, metav1.GetControllerOf(pod), replicaSets)
			if err != nil {
				return nil, err
			}
			if isOf {
				summary.add(pod, r.Engine.Inject(inject.Request{Pod: pod, Namespace: ns}))
			}
		}
		if list.Continue == "" {
			return summary, nil
		}
	}
}
