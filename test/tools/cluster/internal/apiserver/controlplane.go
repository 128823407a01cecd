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
	// Timeout is how long the whole start may take.
	Timeout time.Duration
	// Address is the one that a node's pods reach the API server by, in a network
	// namespace of its own; the loopback alone when empty.
	Address string
	// Port is the API server's; a free one when 0.
	Port int
	// IsInit says that this process is the first of a process namespace: its children
	// end with it, and no reaper is needed.
	IsInit bool
}

// ControlPlane is a control plane that runs.
type ControlPlane struct {
	*DataFolder
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
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	dataFolder, err := LockDataFolder(options.Folder, options.Kubeconfig, !options.IsInit)
	if err != nil {
		return nil, err
	}
	p := &ControlPlane{DataFolder: dataFolder, options: options, failed: make(chan error, 1)}
	ctx, cancel := context.WithTimeoutCause(ctx, options.Timeout, fmt.Errorf("gave up after %s", options.Timeout))
	defer cancel()
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *ControlPlane) start(ctx context.Context) error {
	if err := p.createCertificates(); err != nil {
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
	return p.publishEndpoint(server)
}

// createCertificates makes the authority and every certificate that it signs.
func (p *ControlPlane) createCertificates() error {
	authority, err := newAuthority(filepath.Join(p.folder, pkiFolder), time.Now())
	if err != nil {
		return err
	}
	p.authority = authority
	return errors.Join(
		authority.issueServing("apiserver", p.options.apiServerHosts()...),
		authority.issueClient("admin", "isthmus-admin", "system:masters"),
		authority.issueClient("controller-manager", "system:kube-controller-manager"),
		authority.writeSigningKey("service-account"),
	)
}

func (p *ControlPlane) startEtcd(ctx context.Context) error {
	etcd, err := p.startComponent("etcd", etcdArguments())
	if err != nil {
		return err
	}
	// The API server goes on asking from here.
	return etcd.awaitReady(ctx, func(context.Context) error {
		_, err := os.Stat(filepath.Join(p.folder, etcdSocket))
		return err
	})
}

func (p *ControlPlane) startAPIServer(ctx context.Context) (*client, string, error) {
	for attempt := 1; ; attempt++ {
		port, err := p.options.port()
		if err != nil {
			return nil, "", err
		}
		server := fmt.Sprintf("https://127.0.0.1:%d", port)
		client, err := p.authority.newClient(server, "admin")
		if err != nil {
			return nil, "", err
		}
		process, err := p.startComponent("kube-apiserver", p.options.apiServerArguments(p.folder, port))
		if err != nil {
			return nil, "", err
		}
		// Namespaces are made in the background after the server calls itself ready.
		process.component.Ready = client.readyCheck("/readyz", "/api/v1/namespaces/default")
		err = process.awaitReady(ctx, process.component.Ready)
		if err == nil {
			return client, server, nil
		}
		if attempt == portAttempts || !strings.Contains(err.Error(), "address already in use") {
			return nil, "", err
		}
		process.kill()
		p.mu.Lock()
		p.processes = slices.DeleteFunc(p.processes, isProcess(process))
		p.mu.Unlock()
	}
}

func (p *ControlPlane) startControllerManager(ctx context.Context, client *client, server string) error {
	if _, err := p.writeKubeconfig(server, "controller-manager"); err != nil {
		return err
	}
	manager, err := p.startComponent("kube-controller-manager", controllerManagerArguments(p.folder))
	if err != nil {
		return err
	}
	// Its work is the only sign of its being ready: pods need this account.
	return manager.awaitReady(ctx, client.readyCheck("/api/v1/namespaces/default/serviceaccounts/default"))
}

// publishEndpoint writes the kubeconfigs and the endpoint.
func (p *ControlPlane) publishEndpoint(server string) error {
	admin, err := p.authority.kubeconfig(server, "admin")
	if err != nil {
		return err
	}
	path := filepath.Join(p.folder, adminKubeconfigFile)
	if err := os.WriteFile(path, admin, 0o600); err != nil {
		return err
	}
	return p.SetEndpoint(Endpoint{
		Kubeconfig: path,
		Server:     server,
		Kubectl:    p.options.Programs["kubectl"],
		DataDir:    p.folder,
		Logs:       filepath.Join(p.folder, logsFolder),
	})
}

// Failed tells of a component that ended by itself.
func (p *ControlPlane) Failed() <-chan error { return p.failed }
