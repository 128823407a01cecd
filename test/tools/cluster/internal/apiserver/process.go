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

// logTailLines is how much of a component's log an error shows.
const logTailLines = 20

// process is a running component.
type process struct {
	Child
	component Component
	log       string
	// done is closed when the process has ended; ending is then its exit status.
	done       chan struct{}
	exitStatus string
	// stopRequested says that its end was asked for.
	stopRequested atomic.Bool
}

// startProcess starts a component in the data folder. Unless this process is alone in
// its namespace, it must be called on the main thread; see childAttributes.
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
	command.Dir = folder // sockets have short, relative names
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

// componentEnvironment keeps what a component needs and nothing that configures it:
// etcd takes every ETCD_ variable for a flag, Kubernetes KUBE_FEATURE_ ones.
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

// exitError describes the end of a process with the tail of its log.
func (p *process) exitError() error {
	return fmt.Errorf("%s ended with %s; the end of its log:\n%s", p.Name, p.exitStatus, tail(p.log, logTailLines))
}

// kill ends the process at once and waits until it is gone. Its data is thrown
// away with it, so there is nothing to save.
func (p *process) kill() {
	p.stopRequested.Store(true)
	select {
	case <-p.done:
		return
	default:
	}
	// The child was not waited for, so its id cannot be anyone else's.
	_ = syscall.Kill(p.PID, syscall.SIGKILL)
	<-p.done
}

// awaitReady polls until ready returns nil, the process ends, or ctx does.
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

// killAll ends the processes of a harness that is gone, those of them that are
// still the ones it started, and waits for them.
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

// freePort returns a port of the loopback that was free a moment ago.
func freePort() (int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = listener.Close() }()
	address, err := netip.ParseAddrPort(listener.Addr().String())
	return int(address.Port()), err
}
