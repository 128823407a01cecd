package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/isthmus-mesh/isthmus/test/tools/images/certpair"
)

//go:embed haproxy.cfg
var configuration string

// proxy is a running HAProxy.
type proxy struct {
	options *options
	command *exec.Cmd
	// ended is closed when HAProxy has ended. err is set before.
	ended chan struct{}
	err   error
}

// startProxy starts HAProxy with a pair and the address of the upstream, and waits until
// it serves. It takes over the listening sockets of the previous HAProxy, which ends
// when it has finished its requests. (HAProxy's command "commit ssl cert" would change
// a pair without a new process, but in 2.6 it has no effect after a "commit ssl
// ca-file".)
func startProxy(ctx context.Context, o *options, upstream string, pair *certpair.Pair, previous *proxy) (*proxy, error) {
	if err := o.writeFiles(upstream, pair); err != nil {
		return nil, err
	}
	arguments := []string{"-db", "-f", o.path("haproxy.cfg")}
	if previous != nil {
		arguments = append(arguments, "-x", o.path("haproxy.sock"), "-sf", strconv.Itoa(previous.command.Process.Pid))
	}
	p := &proxy{options: o, command: exec.Command(o.haproxy, arguments...), ended: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = os.Stdout, os.Stderr
	started := make(chan error)
	go func() {
		// The kernel kills HAProxy when the thread that started it ends.
		runtime.LockOSThread()
		p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		err := p.command.Start()
		started <- err
		if err == nil {
			p.err = p.command.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	if err := p.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return p, nil
}

// writeFiles writes HAProxy's configuration, pair and roots to the work folder.
func (o *options) writeFiles(upstream string, pair *certpair.Pair) error {
	var text strings.Builder
	values := map[string]any{
		"Listen": o.listen, "Upstream": upstream, "Grace": fmt.Sprintf("%ds", int(o.grace.Seconds())),
		"Socket": o.path("haproxy.sock"), "Pair": o.path("pair.pem"), "Roots": o.path("roots.pem"),
	}
	if err := template.Must(template.New("haproxy.cfg").Parse(configuration)).Execute(&text, values); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(o.path("haproxy.cfg"), []byte(text.String()), 0o600),
		os.WriteFile(o.path("pair.pem"), pair.PEM(), 0o600),
		os.WriteFile(o.path("roots.pem"), pair.Roots, 0o600),
	)
}

// startTimeout limits how long HAProxy may take to start.
const startTimeout = time.Minute

// awaitReady waits until this process, and not the previous one, answers at the socket.
func (p *proxy) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	pidLine := fmt.Sprintf("\nPid: %d\n", p.command.Process.Pid)
	for {
		if answer, err := p.runCommand("show info"); err == nil && strings.Contains(answer, pidLine) {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("haproxy did not start: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("haproxy does not answer: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// runCommand sends a command to HAProxy's admin socket and returns the answer.
func (p *proxy) runCommand(command string) (string, error) {
	conn, err := net.DialTimeout("unix", p.options.path("haproxy.sock"), 5*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// kill kills HAProxy.
func (p *proxy) kill() error {
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
