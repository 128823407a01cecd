// Package plane starts a Kubernetes control plane on the loopback, for tests
// and demos, and leaves nothing behind when it ends.
package plane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Options say what to start.
type Options struct {
	// Folder holds everything the control plane writes, and is removed when it
	// ends; a new temporary folder when empty.
	Folder string
	// Programs are the paths of etcd, kube-apiserver and kubectl, and of
	// kube-controller-manager where that is wanted, by name.
	Programs map[string]string
	// ControllerManager adds the kube-controller-manager.
	ControllerManager bool
	// Kubeconfig is a further place for the admin's kubeconfig; none when empty.
	Kubeconfig string
	// Patience is how long the whole start may take.
	Patience time.Duration
}

// Plane is a control plane that runs.
type Plane struct {
	options   Options
	folder    string
	lock      *os.File
	authority *authority
	state     State
	processes []*process
	admin     []byte // the admin's kubeconfig
	reaper    *reaper
	failed    chan error
}

// portAttempts is how often another port is tried when one was taken between
// its choice and its use.
const portAttempts = 5

// Start starts a control plane and returns when it is ready. It must be called
// on the main thread. After an error nothing is left of it.
func Start(ctx context.Context, options Options) (*Plane, error) {
	if options.Kubeconfig != "" {
		if err := checkOverwrite(options.Kubeconfig); err != nil {
			return nil, err
		}
	}
	folder, lock, err := claim(options.Folder)
	if err != nil {
		return nil, err
	}
	p := &Plane{options: options, folder: folder, lock: lock, failed: make(chan error, 1)}
	ctx, cancel := context.WithTimeoutCause(ctx, options.Patience, fmt.Errorf("gave up after %s", options.Patience))
	defer cancel()
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	p.watch()
	return p, nil
}

func (p *Plane) start(ctx context.Context) error {
	harness, err := identify(os.Getpid())
	if err != nil {
		return err
	}
	p.state = State{Harness: harness, Kubeconfig: p.options.Kubeconfig}
	if err := p.state.write(p.folder); err != nil {
		return err
	}
	if p.reaper, err = startReaper(p.folder); err != nil {
		return err
	}
	if err := p.certify(); err != nil {
		return err
	}
	if err := p.startEtcd(ctx); err != nil {
		return err
	}
	client, server, err := p.startAPIServer(ctx)
	if err != nil {
		return err
	}
	if p.options.ControllerManager {
		if err := p.startControllerManager(ctx, client, server); err != nil {
			return err
		}
	}
	return p.publish(server)
}

// certify makes the authority and every certificate that it signs.
func (p *Plane) certify() error {
	authority, err := newAuthority(filepath.Join(p.folder, pkiName), time.Now())
	if err != nil {
		return err
	}
	p.authority = authority
	return errors.Join(
		authority.server("apiserver", apiServerHosts()...),
		authority.client("admin", "isthmus-admin", "system:masters"),
		authority.client("controller-manager", "system:kube-controller-manager"),
		authority.signingKey("service-account"),
	)
}

func (p *Plane) startEtcd(ctx context.Context) error {
	etcd, err := p.launch("etcd", etcdArguments())
	if err != nil {
		return err
	}
	// The API server goes on asking from here.
	return etcd.await(ctx, func(context.Context) error {
		_, err := os.Stat(filepath.Join(p.folder, etcdSocket))
		return err
	})
}

func (p *Plane) startAPIServer(ctx context.Context) (*client, string, error) {
	for attempt := 1; ; attempt++ {
		port, err := freePort()
		if err != nil {
			return nil, "", err
		}
		server := fmt.Sprintf("https://127.0.0.1:%d", port)
		client, err := p.authority.connect(server, "admin")
		if err != nil {
			return nil, "", err
		}
		process, err := p.launch("kube-apiserver", apiServerArguments(p.folder, port))
		if err != nil {
			return nil, "", err
		}
		// Namespaces are made in the background after the server calls itself ready.
		err = process.await(ctx, client.get("/readyz", "/api/v1/namespaces/default"))
		if err == nil {
			return client, server, nil
		}
		if attempt == portAttempts || !strings.Contains(err.Error(), "address already in use") {
			return nil, "", err
		}
		process.kill()
		p.processes = p.processes[:len(p.processes)-1]
	}
}

func (p *Plane) startControllerManager(ctx context.Context, client *client, server string) error {
	kubeconfig, err := p.authority.kubeconfig(server, "controller-manager")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.folder, "controller-manager.kubeconfig"), kubeconfig, 0o600); err != nil {
		return err
	}
	manager, err := p.launch("kube-controller-manager", controllerManagerArguments(p.folder))
	if err != nil {
		return err
	}
	// Its work is the only sign of its being ready: pods need this account.
	return manager.await(ctx, client.get("/api/v1/namespaces/default/serviceaccounts/default"))
}

// publish writes the kubeconfigs and the endpoint.
func (p *Plane) publish(server string) error {
	admin, err := p.authority.kubeconfig(server, "admin")
	if err != nil {
		return err
	}
	path := filepath.Join(p.folder, adminName)
	if err := os.WriteFile(path, admin, 0o600); err != nil {
		return err
	}
	p.admin = admin
	if p.options.Kubeconfig != "" {
		if err := writeKubeconfig(p.options.Kubeconfig, admin); err != nil {
			return err
		}
	}
	p.state.Endpoint = &Endpoint{
		Kubeconfig: path,
		Server:     server,
		Kubectl:    p.options.Programs["kubectl"],
		DataDir:    p.folder,
		Logs:       filepath.Join(p.folder, logsName),
	}
	return p.state.write(p.folder)
}

// launch starts a component and records it, so that others can end it.
func (p *Plane) launch(name string, arguments []string) (*process, error) {
	process, err := launch(p.folder, name, p.options.Programs[name], arguments)
	if err != nil {
		return nil, err
	}
	p.processes = append(p.processes, process)
	p.state.Children = append(p.state.Children, process.Child)
	return process, p.state.write(p.folder)
}

// watch reports the first component that ends by itself.
func (p *Plane) watch() {
	for _, process := range p.processes {
		go func() {
			<-process.done
			select {
			case p.failed <- process.died():
			default:
			}
		}()
	}
}

// Endpoint returns how the control plane is reached.
func (p *Plane) Endpoint() Endpoint { return *p.state.Endpoint }

// Failed tells of a component that ended by itself.
func (p *Plane) Failed() <-chan error { return p.failed }
