package istio

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

	"github.com/isthmus-mesh/isthmus/test/plane"
)

// process is a program that runs until it is ended or this process ends.
type process struct {
	name, log string
	command   *exec.Cmd
	// done is closed when the program has ended and was waited for.
	done chan struct{}
}

// launch starts a program in a folder, its output appended to the file log. It
// inherits of the environment only what configures nothing.
func launch(name, folder, log, program string, env, arguments []string) (*process, error) {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	command := exec.Command(program, arguments...)
	command.Dir = folder
	command.Env = env
	for _, variable := range []string{"PATH", "HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(variable); ok {
			command.Env = append(command.Env, variable+"="+value)
		}
	}
	command.Stdout, command.Stderr = out, out
	command.SysProcAttr = attributes()
	p := &process{name: name, log: log, command: command, done: make(chan struct{})}
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
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// running says whether the program has not ended yet.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// end sends a signal, and SIGKILL where that does not help, and waits.
func (p *process) end(signal syscall.Signal) {
	if !p.running() {
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

// await asks until is returns nil, the program ends or ctx does.
func (p *process) await(ctx context.Context, is func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := is(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.explain(fmt.Errorf("%s ended with %s", p.name, p.command.ProcessState))
		case <-ctx.Done():
			return p.explain(fmt.Errorf("%s is not ready: %w", p.name, errors.Join(context.Cause(ctx), err)))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// explain adds the end of the log to an error.
func (p *process) explain(err error) error {
	return fmt.Errorf("%w; the end of its log:\n%s", err, plane.Tail(p.log, 30))
}

// freeAddresses returns addresses of the loopback that were free a moment ago.
func freeAddresses(n int) ([]string, error) {
	var found []string
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		held = append(held, l)
		found = append(found, l.Addr().String())
	}
	return found, nil
}
