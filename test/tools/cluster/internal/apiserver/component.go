package apiserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Component is a program of a control plane or of its node.
type Component struct {
	// Name is the component's name, also of its log file.
	Name string
	// Program is the path of the program.
	Program   string
	Arguments []string
	// Environment holds variables in addition to PATH, HOME, TMPDIR and TZ.
	Environment []string
	// Ready returns an error while the component is not ready. Default: it is ready
	// when its process has started.
	Ready func(context.Context) error

	restarted bool // append to the log of the previous process
}

// Run starts a component and returns when the component is ready.
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

// startRecorded starts a component and records its process, so that the reaper and
// Down can end it.
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

// reportUnexpectedEnd waits until a process ends, and reports that unless it was
// killed on purpose.
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

// latestProcess returns the latest process of a component.
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

// Kill kills a component, as a crash would.
func (p *ControlPlane) Kill(name string) error {
	process, err := p.latestProcess(name)
	if err != nil {
		return err
	}
	process.kill()
	return nil
}

// Restart kills a component if it still runs, starts it again with the same
// arguments, and returns when it is ready.
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

// Pause sends SIGSTOP to a component.
func (p *ControlPlane) Pause(name string) error { return p.signal(name, syscall.SIGSTOP) }

// Resume sends SIGCONT to a component.
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

// IssueKubeconfig writes a kubeconfig with a new client certificate for a user and
// groups, and returns its path.
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

// ServingCertificate writes a serving certificate for names and addresses, and returns
// the paths of the certificate, its key and the authority's certificate.
func (p *ControlPlane) ServingCertificate(name string, hosts ...string) (certificate, key, ca string, err error) {
	err = p.authority.issueServing(name, hosts...)
	return p.authority.path(name + ".crt"), p.authority.path(name + ".key"), p.authority.path("ca.crt"), err
}
