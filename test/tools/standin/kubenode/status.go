package main

import (
	"context"
	"encoding/json"
	"log"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// publish tells the API server how the pod is, where that is news.
func (p *pod) publish(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := p.status()
	if reflect.DeepEqual(status, p.published) {
		return
	}
	for i, c := range status.Conditions {
		status.Conditions[i].LastTransitionTime = metav1.Now().Rfc3339Copy()
		for _, old := range p.published.Conditions {
			if old.Type == c.Type && old.Status == c.Status {
				status.Conditions[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	if reflect.DeepEqual(status, p.published) {
		return
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		log.Printf("%s: %v", p.name(), err)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, err = p.node.client.CoreV1().Pods(p.object.Namespace).Patch(ctx, p.object.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case err == nil:
		p.published = status
	case !apierrors.IsNotFound(err):
		log.Printf("%s: status: %v", p.name(), err)
	}
}

// status is the pod's, without the times of transitions.
func (p *pod) status() corev1.PodStatus {
	s := corev1.PodStatus{Phase: corev1.PodPending, HostIP: hostAddress}
	if p.box != nil {
		s.PodIP, s.PodIPs = p.box.ip, []corev1.PodIP{{IP: p.box.ip}}
	}
	initialised, ready := true, true
	for _, u := range p.init {
		c := u.status()
		initialised = initialised && (u.exited != nil || u.native() && u.started)
		ready = ready && c.Ready
		s.InitContainerStatuses = append(s.InitContainerStatuses, c)
	}
	running := initialised
	for _, u := range p.main {
		c := u.status()
		running = running && u.process != nil
		ready = ready && c.Ready
		s.ContainerStatuses = append(s.ContainerStatuses, c)
	}
	if running {
		s.Phase = corev1.PodRunning
	}
	for kind, is := range map[corev1.PodConditionType]bool{
		corev1.PodScheduled: true, corev1.PodInitialized: initialised, corev1.ContainersReady: ready && running, corev1.PodReady: ready && running,
	} {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse}
		if is {
			c.Status = corev1.ConditionTrue
		}
		s.Conditions = append(s.Conditions, c)
	}
	sortConditions(s.Conditions)
	return s
}

func (u *unit) status() corev1.ContainerStatus {
	c := corev1.ContainerStatus{Name: u.spec.Name, Image: u.spec.Image, ImageID: u.spec.Image, RestartCount: u.restarts, Started: ptr.To(u.started), Ready: u.ready}
	switch {
	case u.exited != nil:
		c.State.Terminated = u.exited
	case u.problem != "":
		reason, message, found := strings.Cut(u.problem, ": ")
		if !found || strings.Contains(reason, " ") {
			reason, message = "CrashLoopBackOff", u.problem
		}
		c.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	case u.process != nil:
		c.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(u.process.started).Rfc3339Copy()}
	default:
		reason, message, _ := strings.Cut(u.pod.waiting, ": ")
		if reason == "" {
			reason = "PodInitializing"
		}
		c.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	}
	return c
}

func sortConditions(all []corev1.PodCondition) {
	slices.SortFunc(all, func(a, b corev1.PodCondition) int { return strings.Compare(string(a.Type), string(b.Type)) })
}
