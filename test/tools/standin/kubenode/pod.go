package main

import (
	"context"
	"fmt"
	"log"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// pod is a pod that this node runs.
type pod struct {
	node    *node
	apiPod  *corev1.Pod
	folder  string
	sandbox *sandbox

	// stopping is closed when the pod must end.
	stopping chan struct{}
	stopOnce sync.Once

	mu            sync.Mutex
	init, main    []*podContainer
	waitingReason string // why no container has started yet
	lastStatus    corev1.PodStatus
}

func newPod(n *node, apiPod *corev1.Pod) *pod {
	p := &pod{node: n, apiPod: apiPod.DeepCopy(), stopping: make(chan struct{})}
	p.folder = filepath.Join(n.settings.Folder, "pods", string(apiPod.UID))
	for _, c := range apiPod.Spec.InitContainers {
		p.init = append(p.init, &podContainer{pod: p, spec: c, isInit: true})
	}
	for _, c := range apiPod.Spec.Containers {
		p.main = append(p.main, &podContainer{pod: p, spec: c})
	}
	return p
}

func (p *pod) stop() { p.stopOnce.Do(func() { close(p.stopping) }) }

func (p *pod) name() string { return p.apiPod.Namespace + "/" + p.apiPod.Name }

// run starts the pod, waits until it must end, and terminates it.
func (p *pod) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	runContext, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-p.stopping:
			stop()
		case <-runContext.Done():
		}
	}()
	if err := p.start(runContext); err != nil && runContext.Err() == nil {
		log.Printf("%s: %v", p.name(), err)
	}
	select {
	case <-p.stopping:
	case <-ctx.Done():
		return
	}
	p.terminate(ctx)
}

// start does what the kubelet does until the containers run.
func (p *pod) start(ctx context.Context) error {
	if err := p.retry(ctx, "Unscheduled", p.bindToNode); err != nil {
		return err
	}
	created, err := p.node.network.createSandbox()
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.sandbox = created
	p.mu.Unlock()
	p.updateStatus(ctx)
	if err := p.retry(ctx, "ContainerCreating", p.fillVolumes); err != nil {
		return err
	}
	go func() {
		for range ticker(ctx, 2*time.Second) {
			_ = p.refreshVolumes(ctx)
			p.updateStatus(ctx) // retry if the last update failed
		}
	}()
	for _, pc := range p.init {
		if err := pc.runInit(ctx); err != nil {
			return err
		}
	}
	for _, pc := range p.main {
		go pc.runWithRestarts(ctx)
	}
	return nil
}

// retry repeats a step until it succeeds. Meanwhile, the pod's status shows its error.
func (p *pod) retry(ctx context.Context, reason string, step func(context.Context) error) error {
	for {
		err := step(ctx)
		if err == nil {
			p.setWaitingReason(ctx, "")
			return nil
		}
		p.setWaitingReason(ctx, reason+": "+err.Error())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *pod) setWaitingReason(ctx context.Context, reason string) {
	p.mu.Lock()
	changed := p.waitingReason != reason
	p.waitingReason = reason
	p.mu.Unlock()
	if changed {
		p.updateStatus(ctx)
	}
}

// bindToNode binds the pod to this node, as the scheduler does.
func (p *pod) bindToNode(ctx context.Context) error {
	if p.apiPod.Spec.NodeName != "" {
		return nil
	}
	err := p.node.client.CoreV1().Pods(p.apiPod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: p.apiPod.Name, UID: p.apiPod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("bind: %w", err)
	}
	p.apiPod.Spec.NodeName = nodeName
	return nil
}

// terminate ends the containers, then the sidecars, and deletes the pod from the API
// server.
func (p *pod) terminate(ctx context.Context) {
	grace := time.Duration(ptr.Deref(p.apiPod.Spec.TerminationGracePeriodSeconds, 30)) * time.Second
	grace = max(grace, time.Second)
	for _, group := range [][]*podContainer{p.main, p.init} {
		var all sync.WaitGroup
		for _, pc := range group {
			all.Go(func() { pc.terminate(grace) })
		}
		all.Wait()
	}
	if p.sandbox != nil {
		p.sandbox.remove()
	}
	err := p.node.client.CoreV1().Pods(p.apiPod.Namespace).Delete(ctx, p.apiPod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(p.apiPod.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		log.Printf("%s: remove: %v", p.name(), err)
	}
}
