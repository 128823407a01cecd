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
func (f *fakeKubelet) hold(matches func(*corev1.Pod) bool) (resume func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = append(f.held, matches)
	index := len(f.held) - 1
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.held[index] = func(*corev1.Pod) bool { return false }
	}
}

func (f *fakeKubelet) isHeld(pod *corev1.Pod) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, matches := range f.held {
		if matches(pod) {
			return true
		}
	}
	return false
}

func (f *fakeKubelet) run(ctx context.Context) {
	for ctx.Err() == nil {
		list, err := kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Pending"})
		if err == nil {
			for i := range list.Items {
				if pod := &list.Items[i]; pod.DeletionTimestamp.IsZero() && !f.isHeld(pod) {
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
