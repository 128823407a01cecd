// Package apiserver runs a Kubernetes control plane on the loopback interface for
// tests and demos. It leaves nothing behind when it ends.
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

// Options describe the control plane to start.
type Options struct {
	// Folder holds everything that the control plane writes, and is removed when it
	// ends. Default: a new temporary folder.
	Folder string
	// Programs are the paths of etcd, kube-apiserver and kubectl by name, and of
	// kube-controller-manager if ControllerManager is set.
	Programs map[string]string
	// ControllerManager says whether to start the kube-controller-manager too.
	ControllerManager bool
	// Kubeconfig is an additional file for the admin's kubeconfig. Default: none.
	Kubeconfig string
	// Timeout limits the whole start.
	Timeout time.Duration
	// Address is the address at which a node's pods reach the API server, in the
	// node's network namespace. Default: the loopback interface only.
	Address string
	// Port is the API server's port. Default: a free port.
	Port int
	// IsInit says that this process is the init process of a PID namespace. Its
	// children then end with it, and no reaper is needed.
	IsInit bool
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	*DataFolder
	options   Options
	authority *authority
	mu        sync.Mutex // guards processes
	processes []*process
	server    string
	failed    chan error
}

// portAttempts is the number of ports to try. Another process may take a port between
// its choice and its use.
const portAttempts = 5

// Start starts a control plane and returns when it is ready. It must be called on the
// main thread. If it fails, it leaves nothing behind.
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

// createCertificates creates the certificate authority and the certificates of the
// control plane.
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
	// From here on the API server retries until etcd answers.
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
		// The API server creates namespaces after /readyz succeeds.
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
	// The kube-controller-manager has no endpoint here that says that it is ready, so
	// wait for the service account that it creates. Pods need it.
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

// Failed returns a channel that receives an error if a component ends by itself.
func (p *ControlPlane) Failed() <-chan error { return p.failed }
