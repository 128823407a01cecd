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

// updateStatus writes the pod's status to the API server if it has changed.
func (p *pod) updateStatus(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := p.status()
	if reflect.DeepEqual(status, p.lastStatus) {
		return
	}
	for i, c := range status.Conditions {
		status.Conditions[i].LastTransitionTime = metav1.Now().Rfc3339Copy()
		for _, old := range p.lastStatus.Conditions {
			if old.Type == c.Type && old.Status == c.Status {
				status.Conditions[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	if reflect.DeepEqual(status, p.lastStatus) {
		return
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		log.Printf("%s: %v", p.name(), err)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, err = p.node.client.CoreV1().Pods(p.apiPod.Namespace).Patch(ctx, p.apiPod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case err == nil:
		p.lastStatus = status
	case !apierrors.IsNotFound(err):
		log.Printf("%s: status: %v", p.name(), err)
	}
}

// status returns the pod's status without transition times.
func (p *pod) status() corev1.PodStatus {
	s := corev1.PodStatus{Phase: corev1.PodPending, HostIP: hostAddress}
	if p.sandbox != nil {
		s.PodIP, s.PodIPs = p.sandbox.ip, []corev1.PodIP{{IP: p.sandbox.ip}}
	}
	initialised, ready := true, true
	for _, pc := range p.init {
		c := pc.status()
		initialised = initialised && (pc.exited != nil || pc.isNativeSidecar() && pc.started)
		ready = ready && c.Ready
		s.InitContainerStatuses = append(s.InitContainerStatuses, c)
	}
	running := initialised
	for _, pc := range p.main {
		c := pc.status()
		running = running && pc.process != nil
		ready = ready && c.Ready
		s.ContainerStatuses = append(s.ContainerStatuses, c)
	}
	if running {
		s.Phase = corev1.PodRunning
	}
	for kind, holds := range map[corev1.PodConditionType]bool{
		corev1.PodScheduled: true, corev1.PodInitialized: initialised, corev1.ContainersReady: ready && running, corev1.PodReady: ready && running,
	} {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse}
		if holds {
			c.Status = corev1.ConditionTrue
		}
		s.Conditions = append(s.Conditions, c)
	}
	sortConditions(s.Conditions)
	return s
}

func (pc *podContainer) status() corev1.ContainerStatus {
	c := corev1.ContainerStatus{Name: pc.spec.Name, Image: pc.spec.Image, ImageID: pc.spec.Image, RestartCount: pc.restarts, Started: ptr.To(pc.started), Ready: pc.ready}
	switch {
	case pc.exited != nil:
		c.State.Terminated = pc.exited
	case pc.lastError != "":
		reason, message, found := strings.Cut(pc.lastError, ": ")
		if !found || strings.Contains(reason, " ") {
			reason, message = "CrashLoopBackOff", pc.lastError
		}
		c.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	case pc.process != nil:
		c.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(pc.process.started).Rfc3339Copy()}
	default:
		reason, message, _ := strings.Cut(pc.pod.waitingReason, ": ")
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
