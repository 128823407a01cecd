package apiserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Component is a program that belongs to a control plane or its node.
type Component struct {
	// Name is also its log's.
	Name string
	// Program is its path.
	Program   string
	Arguments []string
	// Environment is what it gets beside PATH, HOME, TMPDIR and TZ.
	Environment []string
	// Ready tells whether it does its work; nil: as soon as it runs.
	Ready func(context.Context) error

	restarted bool // it ran before: its log goes on
}

// Run starts a component and returns when it is ready.
func (p *ControlPlane) Run(ctx context.Context, c Component) error {
	process, err := p.startRecorded(c)
	if err != nil || c.Ready == nil {
		return err
	}
	return process.awaitReady(ctx, c.Ready)
}

// startComponent starts a component of the control plane itself.
func (p *ControlPlane) startComponent(name string, arguments []string) (*process, error) {
	return p.startRecorded(Component{Name: name, Program: p.options.Programs[name], Arguments: arguments})
}

// startRecorded starts a component and records it, so that others can end it.
func (p *ControlPlane) startRecorded(c Component) (*process, error) {
	process, err := startProcess(p.folder, c, p.options.IsInit)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.processes = append(p.processes, process)
	p.mu.Unlock()
	go p.reportUnexpectedEnd(process)
	return process, p.RecordChild(process.Child)
}

// reportUnexpectedEnd reports a component that ends by itself.
func (p *ControlPlane) reportUnexpectedEnd(process *process) {
	<-process.done
	if process.stopRequested.Load() {
		return
	}
	select {
	case p.failed <- process.exitError():
	default:
	}
}

// latestProcess returns the component's latest process.
func (p *ControlPlane) latestProcess(name string) (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for _, process := range slices.Backward(p.processes) {
		if process.Name == name {
			return process, nil
		}
		names = append(names, process.Name)
	}
	slices.Sort(names)
	return nil, fmt.Errorf("no component %q: choose from %q", name, slices.Compact(names))
}

// Kill ends a component at once, as a crash would.
func (p *ControlPlane) Kill(name string) error {
	process, err := p.latestProcess(name)
	if err != nil {
		return err
	}
	process.kill()
	return nil
}

// Restart ends a component, if it still runs, starts it again as it was, and
// returns when it is ready.
func (p *ControlPlane) Restart(ctx context.Context, name string) error {
	process, err := p.latestProcess(name)
	if err != nil {
		return err
	}
	process.kill()
	p.mu.Lock()
	p.processes = slices.DeleteFunc(p.processes, isProcess(process))
	p.mu.Unlock()
	process.component.restarted = true
	return p.Run(ctx, process.component)
}

// Pause stops a component's execution until Resume.
func (p *ControlPlane) Pause(name string) error { return p.signal(name, syscall.SIGSTOP) }

// Resume ends Pause.
func (p *ControlPlane) Resume(name string) error { return p.signal(name, syscall.SIGCONT) }

func (p *ControlPlane) signal(name string, signal syscall.Signal) error {
	process, err := p.latestProcess(name)
	if err != nil {
		return err
	}
	return process.Identity.signal(signal)
}

func isProcess(wanted *process) func(*process) bool {
	return func(p *process) bool { return p == wanted }
}

// IssueKubeconfig writes a kubeconfig for this user and these groups, and returns its
// path.
func (p *ControlPlane) IssueKubeconfig(name, user string, groups ...string) (string, error) {
	if err := p.authority.issueClient(name, user, groups...); err != nil {
		return "", err
	}
	return p.writeKubeconfig(p.server, name)
}

// writeKubeconfig writes the kubeconfig of one of the authority's clients.
func (p *ControlPlane) writeKubeconfig(server, name string) (string, error) {
	content, err := p.authority.kubeconfig(server, name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(p.folder, name+".kubeconfig")
	return path, os.WriteFile(path, content, 0o600)
}

// ServingCertificate writes a serving certificate for these names and addresses, and returns
// the paths of certificate, key and the authority's own certificate.
func (p *ControlPlane) ServingCertificate(name string, hosts ...string) (certificate, key, ca string, err error) {
	err = p.authority.issueServing(name, hosts...)
	return p.authority.path(name + ".crt"), p.authority.path(name + ".key"), p.authority.path("ca.crt"), err
}
