// Package apiserver starts a Kubernetes control plane on the loopback, for tests
// and demos, and leaves nothing behind when it ends.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	// Address is the one that a node's pods reach the API server by, in a network
	// namespace of its own; the loopback alone when empty.
	Address string
	// Port is the API server's; a free one when 0.
	Port int
	// Alone says that this process is the first of a process namespace: its children
	// end with it, and no reaper is needed.
	Alone bool
}

// Plane is a control plane that runs.
type Plane struct {
	*Hold
	options   Options
	authority *authority
	mu        sync.Mutex // guards processes
	processes []*process
	server    string
	failed    chan error
}

// portAttempts is how often another port is tried when one was taken between
// its choice and its use.
const portAttempts = 5

// Start starts a control plane and returns when it is ready. It must be called
// on the main thread. After an error nothing is left of it.
func Start(ctx context.Context, options Options) (*Plane, error) {
	hold, err := Claim(options.Folder, options.Kubeconfig, !options.Alone)
	if err != nil {
		return nil, err
	}
	p := &Plane{Hold: hold, options: options, failed: make(chan error, 1)}
	ctx, cancel := context.WithTimeoutCause(ctx, options.Patience, fmt.Errorf("gave up after %s", options.Patience))
	defer cancel()
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Plane) start(ctx context.Context) error {
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
	p.server = server
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
		authority.server("apiserver", p.options.apiServerHosts()...),
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
		port, err := p.options.port()
		if err != nil {
			return nil, "", err
		}
		server := fmt.Sprintf("https://127.0.0.1:%d", port)
		client, err := p.authority.connect(server, "admin")
		if err != nil {
			return nil, "", err
		}
		process, err := p.launch("kube-apiserver", p.options.apiServerArguments(p.folder, port))
		if err != nil {
			return nil, "", err
		}
		// Namespaces are made in the background after the server calls itself ready.
		process.component.Ready = client.get("/readyz", "/api/v1/namespaces/default")
		err = process.await(ctx, process.component.Ready)
		if err == nil {
			return client, server, nil
		}
		if attempt == portAttempts || !strings.Contains(err.Error(), "address already in use") {
			return nil, "", err
		}
		process.kill()
		p.mu.Lock()
		p.processes = slices.DeleteFunc(p.processes, same(process))
		p.mu.Unlock()
	}
}

func (p *Plane) startControllerManager(ctx context.Context, client *client, server string) error {
	if _, err := p.writeKubeconfig(server, "controller-manager"); err != nil {
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
	return p.Announce(Endpoint{
		Kubeconfig: path,
		Server:     server,
		Kubectl:    p.options.Programs["kubectl"],
		DataDir:    p.folder,
		Logs:       filepath.Join(p.folder, logsName),
	})
}

// Failed tells of a component that ended by itself.
func (p *Plane) Failed() <-chan error { return p.failed }
