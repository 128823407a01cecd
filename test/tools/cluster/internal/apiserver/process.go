package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// logTailLines limits how many lines of a component's log an error shows.
const logTailLines = 20

// process is a running component.
type process struct {
	Child
	component Component
	log       string
	// done is closed when the process has ended. exitStatus is set before.
	done       chan struct{}
	exitStatus string
	// stopRequested is set before the process is killed on purpose.
	stopRequested atomic.Bool
}

// startProcess starts a component in the data folder. Unless this process is the init
// process of its PID namespace, it must be called on the main thread; see
// childAttributes.
func startProcess(folder string, c Component, isInit bool) (*process, error) {
	name := c.Name
	logs := filepath.Join(folder, logsFolder)
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if !c.restarted {
		flags |= os.O_TRUNC
	}
	log, err := os.OpenFile(filepath.Join(logs, name+".log"), flags, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()

	command := exec.Command(c.Program, c.Arguments...)
	command.Dir = folder // sockets have relative names, which are short enough
	command.Env = append(componentEnvironment(os.Environ()), c.Environment...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = childAttributes(isInit)
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{Child: NewChild(name, command.Process.Pid), component: c, log: log.Name(), done: make(chan struct{})}
	go func() {
		_ = command.Wait()
		p.exitStatus = command.ProcessState.String()
		close(p.done)
	}()
	return p, nil
}

// componentEnvironment returns the variables that a component needs, without those
// that configure it: etcd reads ETCD_ variables, Kubernetes KUBE_FEATURE_ variables.
func componentEnvironment(inherited []string) []string {
	var filtered []string
	for _, variable := range inherited {
		switch name, _, _ := strings.Cut(variable, "="); name {
		case "PATH", "HOME", "TMPDIR", "TZ":
			filtered = append(filtered, variable)
		}
	}
	return filtered
}

// exitError returns an error with the exit status and the end of the log.
func (p *process) exitError() error {
	return fmt.Errorf("%s ended with %s; the end of its log:\n%s", p.Name, p.exitStatus, tail(p.log, logTailLines))
}

// kill kills the process and waits until it has ended. Its data is removed too, so it
// has nothing to save.
func (p *process) kill() {
	p.stopRequested.Store(true)
	select {
	case <-p.done:
		return
	default:
	}
	// The child was not waited for, so the kernel has not reused its process ID.
	_ = syscall.Kill(p.PID, syscall.SIGKILL)
	<-p.done
}

// awaitReady polls until ready returns nil, the process ends, or ctx ends.
func (p *process) awaitReady(ctx context.Context, ready func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ready(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.exitError()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready (%w): %w; the end of its log:\n%s", p.Name, context.Cause(ctx), err, tail(p.log, logTailLines))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// killAll kills the children that still run, and waits for their end. The harness
// that started them has ended.
func killAll(children []Child) {
	for _, child := range children {
		_ = child.signal(syscall.SIGKILL)
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, child := range children {
		for child.Alive() && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// freePort returns a port that is free on the loopback interface.
func freePort() (int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = listener.Close() }()
	address, err := netip.ParseAddrPort(listener.Addr().String())
	return int(address.Port()), err
}
