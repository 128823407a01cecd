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

// pod is one that this node runs.
type pod struct {
	node   *node
	object *corev1.Pod
	folder string
	box    *sandbox

	// ending is closed when the pod is to end.
	ending  chan struct{}
	endOnce sync.Once

	mu         sync.Mutex
	init, main []*unit
	waiting    string // why no container starts
	published  corev1.PodStatus
}

func newPod(n *node, object *corev1.Pod) *pod {
	p := &pod{node: n, object: object.DeepCopy(), ending: make(chan struct{})}
	p.folder = filepath.Join(n.settings.Folder, "pods", string(object.UID))
	for _, c := range object.Spec.InitContainers {
		p.init = append(p.init, &unit{pod: p, spec: c, initial: true})
	}
	for _, c := range object.Spec.Containers {
		p.main = append(p.main, &unit{pod: p, spec: c})
	}
	return p
}

func (p *pod) stop() { p.endOnce.Do(func() { close(p.ending) }) }

func (p *pod) name() string { return p.object.Namespace + "/" + p.object.Name }

// run is the life of the pod.
func (p *pod) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running, halt := context.WithCancel(ctx)
	defer halt()
	go func() {
		select {
		case <-p.ending:
			halt()
		case <-running.Done():
		}
	}()
	if err := p.start(running); err != nil && running.Err() == nil {
		log.Printf("%s: %v", p.name(), err)
	}
	select {
	case <-p.ending:
	case <-ctx.Done():
		return
	}
	p.end(ctx)
}

// start goes through what kubelet does, up to running containers.
func (p *pod) start(ctx context.Context) error {
	if err := p.await(ctx, "Unscheduled", p.bind); err != nil {
		return err
	}
	box, err := p.node.network.join()
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.box = box
	p.mu.Unlock()
	p.publish(ctx)
	if err := p.await(ctx, "ContainerCreating", p.fill); err != nil {
		return err
	}
	go func() {
		for range tick(ctx, 2*time.Second) {
			_ = p.refresh(ctx)
			p.publish(ctx) // again, where the API server did not take it
		}
	}()
	for _, u := range p.init {
		if err := u.initialise(ctx); err != nil {
			return err
		}
	}
	for _, u := range p.main {
		go u.keep(ctx)
	}
	return nil
}

// await repeats a step until it works, and shows in the pod's status why it does
// not yet.
func (p *pod) await(ctx context.Context, reason string, step func(context.Context) error) error {
	for {
		err := step(ctx)
		if err == nil {
			p.explain(ctx, "")
			return nil
		}
		p.explain(ctx, reason+": "+err.Error())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *pod) explain(ctx context.Context, why string) {
	p.mu.Lock()
	changed := p.waiting != why
	p.waiting = why
	p.mu.Unlock()
	if changed {
		p.publish(ctx)
	}
}

// bind is the scheduler's part.
func (p *pod) bind(ctx context.Context) error {
	if p.object.Spec.NodeName != "" {
		return nil
	}
	err := p.node.client.CoreV1().Pods(p.object.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: p.object.Name, UID: p.object.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("bind: %w", err)
	}
	p.object.Spec.NodeName = nodeName
	return nil
}

// end stops the containers, then the sidecars, and removes the pod.
func (p *pod) end(ctx context.Context) {
	grace := time.Duration(ptr.Deref(p.object.Spec.TerminationGracePeriodSeconds, 30)) * time.Second
	grace = max(grace, time.Second)
	for _, group := range [][]*unit{p.main, p.init} {
		var all sync.WaitGroup
		for _, u := range group {
			all.Go(func() { u.end(grace) })
		}
		all.Wait()
	}
	if p.box != nil {
		p.box.leave()
	}
	err := p.node.client.CoreV1().Pods(p.object.Namespace).Delete(ctx, p.object.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(p.object.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		log.Printf("%s: remove: %v", p.name(), err)
	}
}
