package restart

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fakeKubelet replaces the kubelets: it marks every pod as ready, except those that a
// test holds back.
type fakeKubelet struct {
	mu   sync.Mutex
	held []func(*corev1.Pod) bool
}

var kubelet = &fakeKubelet{}

// hold keeps pods from becoming ready until resume is called.
func (h *fakeKubelet) hold(matches func(*corev1.Pod) bool) (resume func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = append(h.held, matches)
	index := len(h.held) - 1
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.held[index] = func(*corev1.Pod) bool { return false }
	}
}

func (h *fakeKubelet) isHeld(pod *corev1.Pod) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, matches := range h.held {
		if matches(pod) {
			return true
		}
	}
	return false
}

func (h *fakeKubelet) run(ctx context.Context) {
	for ctx.Err() == nil {
		list, err := kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Pending"})
		if err == nil {
			for i := range list.Items {
				if pod := &list.Items[i]; pod.DeletionTimestamp.IsZero() && !h.isHeld(pod) {
					markReady(ctx, pod)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pollInterval):
		}
	}
}

// markReady updates the status of a pod. After a conflict the next round does.
func markReady(ctx context.Context, pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()},
		{Type: corev1.ContainersReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()},
	}
	_, _ = kube.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
}
