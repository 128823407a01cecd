package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// probeInterval is how often a container is probed. The probe's period and initial delay
// are ignored, so that guides do not wait for them.
const probeInterval = 200 * time.Millisecond

// podContainer is a container of a pod. The pod's mutex guards the fields from process
// on.
type podContainer struct {
	pod    *pod
	spec   corev1.Container
	isInit bool

	process   *process
	started   bool // its startup probe has succeeded
	ready     bool
	restarts  int32
	exited    *corev1.ContainerStateTerminated
	lastError string
}

// isNativeSidecar reports whether the container is an init container that restarts always.
func (pc *podContainer) isNativeSidecar() bool {
	return pc.isInit && ptr.Deref(pc.spec.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
}

// runInit runs an init container until it completes, or starts a native sidecar and waits
// for its startup probe.
func (pc *podContainer) runInit(ctx context.Context) error {
	if pc.redirectsTraffic() {
		pc.update(ctx, func() {
			pc.exited, pc.ready = &corev1.ContainerStateTerminated{Reason: "Completed"}, true
		})
		return nil
	}
	if pc.isNativeSidecar() {
		go pc.runWithRestarts(ctx)
		return pc.pod.retry(ctx, "PodInitializing", func(context.Context) error {
			if !pc.isStarted() {
				return errors.New("sidecar " + pc.spec.Name + " has not started")
			}
			return nil
		})
	}
	return pc.pod.retry(ctx, "PodInitializing", func(ctx context.Context) error {
		if err := pc.launch(ctx); err != nil {
			return err
		}
		select {
		case <-pc.process.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if pc.process.code != 0 {
			return fmt.Errorf("init container %s ended with %d", pc.spec.Name, pc.process.code)
		}
		pc.update(ctx, func() {
			pc.exited, pc.ready = &corev1.ContainerStateTerminated{Reason: "Completed"}, true
		})
		return nil
	})
}

// redirectsTraffic reports whether this is Istio's init container, which redirects the
// pod's traffic to Envoy. There is no Envoy here, so it is not run.
func (pc *podContainer) redirectsTraffic() bool {
	return pc.spec.Name == "istio-init" || pc.spec.Name == "istio-validation"
}

// runWithRestarts runs the container until ctx ends, and restarts it with a backoff.
func (pc *podContainer) runWithRestarts(ctx context.Context) {
	for backoff := time.Second; ctx.Err() == nil; backoff = min(2*backoff, 10*time.Second) {
		err := pc.launch(ctx)
		if err == nil {
			probeContext, stopProbes := context.WithCancel(ctx)
			go pc.runProbes(probeContext)
			select {
			case <-pc.process.done:
			case <-ctx.Done():
			}
			stopProbes()
			if ctx.Err() != nil {
				return
			}
			err = fmt.Errorf("ended with %d", pc.process.code)
		}
		pc.update(ctx, func() {
			pc.lastError, pc.ready, pc.started = err.Error(), false, false
			pc.restarts++
		})
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
	}
}

// launch starts the container's process.
func (pc *podContainer) launch(ctx context.Context) error {
	c, err := pc.buildSpec(ctx)
	if err != nil {
		return err
	}
	log := filepath.Join(pc.pod.node.settings.Folder, "logs", pc.pod.apiPod.Namespace+"_"+pc.pod.apiPod.Name+"_"+pc.spec.Name+".log")
	process, err := startProcess(c, uintptr(pc.pod.sandbox.namespace), log)
	if err != nil {
		return err
	}
	pc.update(ctx, func() { pc.process, pc.lastError, pc.exited = process, "", nil })
	return nil
}

// runProbes runs the container's startup probe and then its readiness probe until ctx
// ends. It ignores the liveness probe, so that a process that hangs is not restarted.
func (pc *podContainer) runProbes(ctx context.Context) {
	started, ready := false, false
	for range ticker(ctx, probeInterval) {
		if !started {
			if pc.probe(ctx, pc.spec.StartupProbe) != nil {
				continue
			}
			started = true
		}
		answered := pc.probe(ctx, pc.spec.ReadinessProbe) == nil
		if first := !pc.isStarted(); answered == ready && !first {
			continue
		}
		ready = answered
		pc.update(ctx, func() {
			if ctx.Err() == nil { // otherwise the process has ended meanwhile
				pc.started, pc.ready = true, ready
			}
		})
	}
}

func (pc *podContainer) isStarted() bool {
	pc.pod.mu.Lock()
	defer pc.pod.mu.Unlock()
	return pc.started
}

// probe returns an error if a probe fails. A missing probe succeeds. Only HTTP probes are
// supported; others succeed.
func (pc *podContainer) probe(ctx context.Context, p *corev1.Probe) error {
	if p == nil || p.HTTPGet == nil {
		return nil
	}
	port := p.HTTPGet.Port.IntVal
	for _, containerPort := range pc.spec.Ports {
		if p.HTTPGet.Port.StrVal != "" && containerPort.Name == p.HTTPGet.Port.StrVal {
			port = containerPort.ContainerPort
		}
	}
	if port == envoyProbePort && pc.runsEnvoy() {
		port = agentProbePort
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	url := fmt.Sprintf("http://%s:%d%s", pc.pod.sandbox.ip, port, p.HTTPGet.Path)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		return errors.New(response.Status)
	}
	return nil
}

// update changes the container's fields and updates the pod's status.
func (pc *podContainer) update(ctx context.Context, change func()) {
	pc.pod.mu.Lock()
	change()
	pc.pod.mu.Unlock()
	pc.pod.updateStatus(ctx)
}

func (pc *podContainer) terminate(grace time.Duration) {
	pc.pod.mu.Lock()
	process := pc.process
	pc.pod.mu.Unlock()
	if process != nil {
		process.terminate(grace)
	}
}
