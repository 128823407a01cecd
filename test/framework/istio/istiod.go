// Package istio stands for Istio: the real istiod and the real pilot-agent, as processes
// beside a control plane of package controlplane.
//
// Tiers: test/mesh, test/guides and test/soak, and hack/demo. On a node Istio runs from its
// own charts: package node.
package istio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/process"
)

const (
	// Namespace is the namespace of Istio.
	Namespace = "istio-system"
	// RootConfigMap is the ConfigMap in every namespace into which istiod writes its root
	// certificates, under key root-cert.pem.
	RootConfigMap = "istio-ca-root-cert"
	// ServerName is the DNS name of istiod's certificate. The certificate also has
	// 127.0.0.1, because that is the mesh's discoveryAddress (pilot/pkg/bootstrap of
	// Istio), so clients need no name.
	ServerName = "istiod." + Namespace + ".svc"
	// ClusterID is the name of the cluster in istiod.
	ClusterID = "Kubernetes"
	// TrustDomain is the trust domain of the mesh.
	TrustDomain = "cluster.local"

	startTimeout = 90 * time.Second
)

// Options configure istiod. They may be changed between Kill and Restart.
type Options struct {
	// Env is added to istiod's environment, such as DEFAULT_WORKLOAD_CERT_TTL.
	Env map[string]string
	// CA is the authority that istiod signs with. Default: one that istiod creates.
	CA *CA
	// Revision is its revision. Default: "", the default one.
	Revision string
	// Injector makes istiod serve its injection webhook and the API server call it.
	// Default: no injector.
	Injector *Injector
}

// Istiod is a running istiod. There can be one for each control plane and revision.
type Istiod struct {
	*Discovery
	// Options are used by the next Restart.
	Options Options
	// StartDuration is the time from the last start until istiod was ready.
	StartDuration time.Duration

	folder string
	// temporary says that Stop has to remove the folder.
	temporary bool
	logs      string
	program   string
	process   *process.Process
	agents    atomic.Int32
}

// Start installs Istio's CRDs and mesh configuration and starts istiod. It
// returns when istiod serves certificates and has published its roots. Programs
// that are missing are built first, with progress on standard error.
func Start(ctx context.Context, p *controlplane.Plane, o Options) (*Istiod, error) {
	admin, err := p.Admin()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(admin)
	if err != nil {
		return nil, err
	}
	i := &Istiod{Options: o}
	if i.Discovery, err = NewDiscovery(p.Kubeconfig, client); err != nil {
		return nil, err
	}
	i.Revision = o.Revision
	if i.program, err = controlplane.Tool(ctx, "pilot-discovery"); err != nil {
		return nil, err
	}
	if err := i.createFolders(p); err != nil {
		return nil, err
	}
	if err := i.Install(ctx); err != nil {
		return nil, errors.Join(err, i.Stop())
	}
	// istiod serves the injector only if its templates exist when it starts.
	if o.Injector != nil {
		if err := i.writeInjector(ctx, *o.Injector); err != nil {
			return nil, errors.Join(err, i.Stop())
		}
	}
	if err := i.Restart(ctx); err != nil {
		return nil, errors.Join(err, i.Stop())
	}
	if o.Injector != nil {
		if err := i.awaitCABundles(ctx); err != nil {
			return nil, errors.Join(err, i.Stop())
		}
	}
	return i, nil
}

// createFolders creates the folders. Those of a control plane that was started here are
// removed with it, even when this process is killed.
func (i *Istiod) createFolders(p *controlplane.Plane) (err error) {
	if p.Logs == "" {
		i.temporary = true
		i.folder, err = os.MkdirTemp("", "isthmus-istio-")
		i.logs = i.folder
		return err
	}
	i.logs = p.Logs
	i.folder, err = os.MkdirTemp(filepath.Dir(p.Logs), "istio-")
	return err
}

// Restart ends istiod with SIGTERM, if it runs, and starts it at the same addresses with
// the current Options.
func (i *Istiod) Restart(ctx context.Context) error {
	if i.process != nil {
		i.process.End(syscall.SIGTERM)
	}
	started := time.Now()
	if err := i.writeCA(); err != nil {
		return err
	}
	env := append(i.Environment(), "ROOT_CA_DIR="+i.caFolder())
	for _, name := range slices.Sorted(maps.Keys(i.Options.Env)) {
		env = append(env, name+"="+i.Options.Env[name])
	}
	var err error
	if i.process, err = process.Start(process.Options{
		Name: "istiod", Program: i.program, Arguments: i.Flags(), Env: env, Dir: i.folder, Log: i.logPath(),
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := i.process.AwaitReady(ctx, i.ready); err != nil {
		return err
	}
	i.StartDuration = time.Since(started)
	return nil
}

// Kill ends istiod with SIGKILL, as when its node dies.
func (i *Istiod) Kill() {
	if i.process != nil {
		i.process.End(syscall.SIGKILL)
	}
}

// Stop ends istiod and removes its files.
func (i *Istiod) Stop() error {
	if i.process != nil {
		i.process.End(syscall.SIGTERM)
	}
	if i.temporary {
		return os.RemoveAll(i.folder)
	}
	return nil
}

// PID returns istiod's process ID.
func (i *Istiod) PID() int { return i.process.PID() }

// Dump writes the end of istiod's log.
func (i *Istiod) Dump(w io.Writer) {
	_, _ = fmt.Fprintf(w, "--- istiod:\n%s\n", controlplane.Tail(i.logPath(), 40))
}

func (i *Istiod) logPath() string { return filepath.Join(i.logs, "istiod-"+i.revision()+".log") }

// ready returns nil when istiod is ready and has published the roots of the plugged-in
// authority.
func (i *Istiod) ready(ctx context.Context) error {
	if ca := i.Options.CA; ca != nil {
		roots, err := i.Roots(ctx, Namespace)
		if err != nil {
			return err
		}
		if !bytes.Equal(bytes.TrimSpace(roots), bytes.TrimSpace(ca.Roots)) {
			return errors.New("the published roots are not those of the authority yet")
		}
	}
	return i.Ready(ctx)
}

// Main runs the tests of a package beside a control plane and istiod, which it passes to
// setUp first, and returns the exit status.
func Main(tests interface{ Run() int }, o Options, setUp func(admin *rest.Config, istiod *Istiod)) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx := context.Background()
	p, err := controlplane.Start(ctx)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = p.Stop() }()
	admin, err := p.Admin()
	if err != nil {
		return fail(err)
	}
	istiod, err := Start(ctx, p, o)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = istiod.Stop() }()
	fmt.Fprintf(os.Stderr, "istiod is ready after %s\n", istiod.StartDuration.Round(time.Millisecond))
	setUp(admin, istiod)
	status := tests.Run()
	if status != 0 {
		istiod.Dump(os.Stderr)
	}
	return status
}
