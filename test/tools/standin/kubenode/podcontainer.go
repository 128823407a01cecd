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

// probeEvery is how often a container is probed, whatever its period and initial
// delay: a guide should not wait for them.
const probeEvery = 200 * time.Millisecond

// unit is a container of a pod. The pod's mutex guards its fields.
type unit struct {
	pod     *pod
	spec    corev1.Container
	initial bool

	process  *process
	started  bool // its startup probe was answered
	ready    bool
	restarts int32
	exited   *corev1.ContainerStateTerminated
	problem  string
}

// native says whether it is a sidecar among the init containers.
func (u *unit) native() bool {
	return u.initial && ptr.Deref(u.spec.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
}

// initialise runs an init container to its end, or a native sidecar up to its
// startup.
func (u *unit) initialise(ctx context.Context) error {
	if u.captures() {
		u.set(ctx, func() {
			u.exited, u.ready = &corev1.ContainerStateTerminated{Reason: "Completed"}, true
		})
		return nil
	}
	if u.native() {
		go u.keep(ctx)
		return u.pod.await(ctx, "PodInitializing", func(context.Context) error {
			if !u.isStarted() {
				return errors.New("sidecar " + u.spec.Name + " has not started")
			}
			return nil
		})
	}
	return u.pod.await(ctx, "PodInitializing", func(ctx context.Context) error {
		if err := u.launch(ctx); err != nil {
			return err
		}
		select {
		case <-u.process.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if u.process.code != 0 {
			return fmt.Errorf("init container %s ended with %d", u.spec.Name, u.process.code)
		}
		u.set(ctx, func() {
			u.exited, u.ready = &corev1.ContainerStateTerminated{Reason: "Completed"}, true
		})
		return nil
	})
}

// captures says whether this is Istio's init container, which would have the
// pod's traffic go through Envoy. There is no Envoy here, so it is left out.
func (u *unit) captures() bool {
	return u.spec.Name == "istio-init" || u.spec.Name == "istio-validation"
}

// keep runs the container again and again until ctx ends.
func (u *unit) keep(ctx context.Context) {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 10*time.Second) {
		err := u.launch(ctx)
		if err == nil {
			alive, halt := context.WithCancel(ctx)
			go u.watch(alive)
			select {
			case <-u.process.done:
			case <-ctx.Done():
			}
			halt()
			if ctx.Err() != nil {
				return
			}
			err = fmt.Errorf("ended with %d", u.process.code)
		}
		u.set(ctx, func() {
			u.problem, u.ready, u.started = err.Error(), false, false
			u.restarts++
		})
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// launch starts the process.
func (u *unit) launch(ctx context.Context) error {
	c, err := u.assemble(ctx)
	if err != nil {
		return err
	}
	log := filepath.Join(u.pod.node.settings.Folder, "logs", u.pod.object.Namespace+"_"+u.pod.object.Name+"_"+u.spec.Name+".log")
	process, err := launch(c, uintptr(u.pod.box.namespace), log)
	if err != nil {
		return err
	}
	u.set(ctx, func() { u.process, u.problem, u.exited = process, "", nil })
	return nil
}

// watch probes the container while it runs: first the startup probe, then
// readiness. Liveness is left out: a process that hangs should be seen hanging.
func (u *unit) watch(ctx context.Context) {
	started, ready := false, false
	for range tick(ctx, probeEvery) {
		if !started {
			if u.probe(ctx, u.spec.StartupProbe) != nil {
				continue
			}
			started = true
		}
		answered := u.probe(ctx, u.spec.ReadinessProbe) == nil
		if first := !u.isStarted(); answered == ready && !first {
			continue
		}
		ready = answered
		u.set(ctx, func() {
			if ctx.Err() == nil { // else the process has ended meanwhile
				u.started, u.ready = true, ready
			}
		})
	}
}

func (u *unit) isStarted() bool {
	u.pod.mu.Lock()
	defer u.pod.mu.Unlock()
	return u.started
}

// probe is nil where the probe is answered, or there is none. Only HTTP can be
// asked; others count as answered once the process runs.
func (u *unit) probe(ctx context.Context, p *corev1.Probe) error {
	if p == nil || p.HTTPGet == nil {
		return nil
	}
	port := p.HTTPGet.Port.IntVal
	for _, named := range u.spec.Ports {
		if p.HTTPGet.Port.StrVal != "" && named.Name == p.HTTPGet.Port.StrVal {
			port = named.ContainerPort
		}
	}
	if port == envoyReadiness && u.envoy() {
		port = agentReadiness
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	url := fmt.Sprintf("http://%s:%d%s", u.pod.box.ip, port, p.HTTPGet.Path)
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

// set changes the unit and tells the API server.
func (u *unit) set(ctx context.Context, change func()) {
	u.pod.mu.Lock()
	change()
	u.pod.mu.Unlock()
	u.pod.publish(ctx)
}

func (u *unit) end(grace time.Duration) {
	u.pod.mu.Lock()
	process := u.process
	u.pod.mu.Unlock()
	if process != nil {
		process.end(grace)
	}
}
