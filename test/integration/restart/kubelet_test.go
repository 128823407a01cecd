package restart

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// hollow replaces the kubelets: it marks every pod as ready, except those that a
// test holds back.
type hollow struct {
	mu   sync.Mutex
	held []func(*corev1.Pod) bool
}

var kubelet = &hollow{}

// hold keeps pods from becoming ready, until what it returns is called.
func (h *hollow) hold(which func(*corev1.Pod) bool) (letGo func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = append(h.held, which)
	at := len(h.held) - 1
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.held[at] = func(*corev1.Pod) bool { return false }
	}
}

func (h *hollow) holds(pod *corev1.Pod) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, which := range h.held {
		if which(pod) {
			return true
		}
	}
	return false
}

func (h *hollow) run(ctx context.Context) {
	for ctx.Err() == nil {
		list, err := kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Pending"})
		if err == nil {
			for i := range list.Items {
				if pod := &list.Items[i]; pod.DeletionTimestamp.IsZero() && !h.holds(pod) {
					start(ctx, pod)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(tick):
		}
	}
}

// start has a pod run; where it changed meanwhile, the next round does.
func start(ctx context.Context, pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()},
		{Type: corev1.ContainersReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()},
	}
	_, _ = kube.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
}
