package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/isthmus-mesh/isthmus/test/cluster/images/pair"
)

//go:embed haproxy.cfg
var configuration string

// proxy is a running HAProxy.
type proxy struct {
	options *options
	command *exec.Cmd
	roots   string // those in force
	ended   chan error
}

// start writes the configuration and the first pair and starts HAProxy with them.
func start(o *options, first *pair.Pair) (*proxy, error) {
	if err := o.write(first); err != nil {
		return nil, err
	}
	p := &proxy{options: o, roots: string(first.RootsPEM()), ended: make(chan error, 1)}
	p.command = exec.Command(o.haproxy, "-db", "-f", o.path("haproxy.cfg"))
	p.command.Stdout, p.command.Stderr = os.Stdout, os.Stderr
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- p.command.Wait() }()
	return p, nil
}

// write fills the work folder.
func (o *options) write(first *pair.Pair) error {
	host, port, err := net.SplitHostPort(o.upstream)
	if err != nil {
		return fmt.Errorf("--upstream %s: %w", o.upstream, err)
	}
	_, notIP := netip.ParseAddr(host)
	var text strings.Builder
	values := map[string]any{
		"Listen": o.listen, "Host": host, "Port": port, "Named": notIP != nil, "Grace": fmt.Sprintf("%ds", int(o.grace.Seconds())),
		"Socket": o.path("haproxy.sock"), "Pair": o.path("pair.pem"), "Roots": o.path("roots.pem"),
	}
	if err := template.Must(template.New("haproxy.cfg").Parse(configuration)).Execute(&text, values); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(o.path("haproxy.cfg"), []byte(text.String()), 0o600),
		os.WriteFile(o.path("pair.pem"), first.PEM(), 0o600),
		os.WriteFile(o.path("roots.pem"), first.RootsPEM(), 0o600),
	)
}

// await waits until HAProxy answers, and removes the key from the work folder: it
// is in HAProxy's memory now.
func (p *proxy) await(ctx context.Context) error {
	for {
		if _, err := p.say("show info"); err == nil {
			return os.Remove(p.options.path("pair.pem"))
		}
		select {
		case err := <-p.ended:
			return fmt.Errorf("haproxy did not start: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// change puts a pair in force, first its roots, then the key with its chain: both
// for connections to come. Requests under way go on in theirs.
func (p *proxy) change(next *pair.Pair) error {
	if roots := string(next.RootsPEM()); roots != p.roots {
		if err := p.commit("ca-file", p.options.path("roots.pem"), roots); err != nil {
			return err
		}
		p.roots = roots
	}
	file := p.options.path("pair.pem")
	if err := p.commit("cert", file, string(next.PEM())); err != nil {
		return err
	}
	shown, err := p.say("show ssl cert " + file)
	if err != nil {
		return err
	}
	if serial := serialOf(shown); serial != next.Serial {
		return fmt.Errorf("haproxy took serial %s and shows %s", next.Serial, serial)
	}
	return nil
}

var serialLine = regexp.MustCompile(`(?m)^Serial: 0*([0-9A-Fa-f]+)$`)

func serialOf(shown string) string {
	if found := serialLine.FindStringSubmatch(shown); found != nil {
		return strings.ToUpper(found[1])
	}
	return ""
}

// commit is a transaction about a file that HAProxy knows. What it answers holds no
// content.
func (p *proxy) commit(kind, file, content string) error {
	prepared, err := p.say(fmt.Sprintf("set ssl %s %s <<\n%s", kind, file, content))
	if err != nil {
		return err
	}
	done, err := p.say(fmt.Sprintf("commit ssl %s %s", kind, file))
	if err == nil && strings.Contains(done, "Success!") {
		return nil
	}
	_, aborted := p.say(fmt.Sprintf("abort ssl %s %s", kind, file))
	return errors.Join(fmt.Errorf("haproxy refuses a new %s: %s %s", kind, strings.TrimSpace(prepared), strings.TrimSpace(done)), err, aborted)
}

// say sends HAProxy a command in a connection of its own and returns the answer.
func (p *proxy) say(command string) (string, error) {
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

// kill ends HAProxy at once.
func (p *proxy) kill() error {
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
