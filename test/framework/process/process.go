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

// Options configure a process.
type Options struct {
	// Name is the name of the program in errors.
	Name string
	// Program is the path of the program, Arguments its arguments. Env is its
	// environment; see Environment for the variables that are added.
	Program        string
	Arguments, Env []string
	// Dir is its working directory. Default: that of this process.
	Dir string
	// Log is the path of the file that its output is appended to.
	Log string
}

// Process is a running program. It ends with this process at the latest.
type Process struct {
	options Options
	command *exec.Cmd
	// done is closed after Wait has returned.
	done chan struct{}
}

// Start starts a program.
func Start(o Options) (*Process, error) {
	out, err := os.OpenFile(o.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	command := exec.Command(o.Program, o.Arguments...)
	command.Dir = o.Dir
	command.Env = Environment(o.Env)
	command.Stdout, command.Stderr = out, out
	command.SysProcAttr = attributes()
	p := &Process{options: o, command: command, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel kills the program when the thread that started it ends, so this
		// thread must live as long.
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

// Environment returns the variables and PATH, HOME and TMPDIR of this process, which are
// the ones that do not configure a program.
func Environment(variables []string) []string {
	env := append([]string{}, variables...)
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// Running reports whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal, such as SIGSTOP, and does not wait.
func (p *Process) Signal(signal syscall.Signal) error { return p.command.Process.Signal(signal) }

// PID is the process ID.
func (p *Process) PID() int { return p.command.Process.Pid }

// End sends a signal and waits until the program has ended. After ten seconds it sends
// SIGKILL.
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

// AwaitReady calls check until it returns nil, the program ends or ctx is done.
func (p *Process) AwaitReady(ctx context.Context, check func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := check(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.WithLogTail(fmt.Errorf("%s ended with %s", p.options.Name, p.command.ProcessState))
		case <-ctx.Done():
			return p.WithLogTail(fmt.Errorf("%s is not ready: %w", p.options.Name, errors.Join(context.Cause(ctx), err)))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// WithLogTail adds the last lines of the log to an error.
func (p *Process) WithLogTail(err error) error {
	return fmt.Errorf("%w; the end of its log:\n%s", err, controlplane.Tail(p.options.Log, 30))
}

// FreeAddresses returns loopback addresses whose ports were free a moment ago.
func FreeAddresses(n int) ([]string, error) {
	var addresses []string
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
		listeners, addresses = append(listeners, l), append(addresses, l.Addr().String())
	}
	return addresses, nil
}
