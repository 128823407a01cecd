// Package process stands for a program under test: it runs the program as a process that
// ends with the test, and shows its log when the test fails.
//
// Tiers: all, and hack/demo.
package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// Options say what to run.
type Options struct {
	// Name is what errors call the program.
	Name string
	// Program is its path, Arguments and Env what it gets. It inherits of the
	// environment only what configures nothing.
	Program        string
	Arguments, Env []string
	// Folder is its working folder. Default: this process' own.
	Folder string
	// Log is the file that its output is appended to.
	Log string
}

// Process is a program that runs until it is ended or this process ends.
type Process struct {
	options Options
	command *exec.Cmd
	// done is closed when the program has ended and was waited for.
	done chan struct{}
}

// Start starts a program.
func Start(o Options) (*Process, error) {
	out, err := os.OpenFile(o.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	command := exec.Command(o.Program, o.Arguments...)
	command.Dir = o.Folder
	command.Env = Environment(o.Env)
	command.Stdout, command.Stderr = out, out
	command.SysProcAttr = attributes()
	p := &Process{options: o, command: command, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel ends the program with the thread that started it, so that
		// thread has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer func() { _ = out.Close() }()
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	return p, nil
}

// Environment adds to the variables those of this process that configure nothing.
func Environment(variables []string) []string {
	env := append([]string{}, variables...)
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// Running says whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal and does not wait: SIGSTOP, for one.
func (p *Process) Signal(signal syscall.Signal) error { return p.command.Process.Signal(signal) }

// ID is the process' id.
func (p *Process) ID() int { return p.command.Process.Pid }

// End sends a signal, and SIGKILL where that does not help, and waits.
func (p *Process) End(signal syscall.Signal) {
	if !p.Running() {
		return
	}
	_ = p.command.Process.Signal(signal)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.command.Process.Kill()
		<-p.done
	}
}

// Await asks until is returns nil, the program ends or ctx does.
func (p *Process) Await(ctx context.Context, is func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := is(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.Explain(fmt.Errorf("%s ended with %s", p.options.Name, p.command.ProcessState))
		case <-ctx.Done():
			return p.Explain(fmt.Errorf("%s is not ready: %w", p.options.Name, errors.Join(context.Cause(ctx), err)))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Explain adds the end of the log to an error.
func (p *Process) Explain(err error) error {
	return fmt.Errorf("%w; the end of its log:\n%s", err, controlplane.Tail(p.options.Log, 30))
}

// FreeAddresses returns addresses of the loopback that were free a moment ago.
func FreeAddresses(n int) ([]string, error) {
	var found []string
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			_ = l.Close()
		}
	}()
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners, found = append(listeners, l), append(found, l.Addr().String())
	}
	return found, nil
}
