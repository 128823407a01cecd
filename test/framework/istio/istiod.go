// Package istio gives tests the real istiod and the real pilot-agent, as
// processes beside a control plane of test/framework/controlplane.
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
	// Namespace is where Istio is.
	Namespace = "istio-system"
	// RootConfigMap is what istiod writes its root certificates into, in every
	// namespace, under the key root-cert.pem.
	RootConfigMap = "istio-ca-root-cert"
	// ServerName is what istiod's certificate is made out to. It is made out to
	// 127.0.0.1 too, since the mesh's discoveryAddress says that istiod is there
	// (pilot/pkg/bootstrap of Istio), so clients need no name.
	ServerName = "istiod." + Namespace + ".svc"
	// ClusterID is what istiod calls the cluster.
	ClusterID = "Kubernetes"
	// TrustDomain is the mesh's.
	TrustDomain = "cluster.local"

	patience = 90 * time.Second
)

// Options say how istiod runs. They may be changed between Kill and Restart.
type Options struct {
	// Env is added to istiod's environment, DEFAULT_WORKLOAD_CERT_TTL for one.
	Env map[string]string
	// CA is the authority that istiod signs with. Default: one that istiod
	// makes for itself.
	CA *CA
	// Revision is its revision. Default: "", the default one.
	Revision string
	// Injector has istiod serve its injection webhook, and the API server call it.
	// Default: it does not.
	Injector *Injector
}

// Istiod is a running istiod. There can be one for a control plane and revision.
type Istiod struct {
	*Discovery
	// Options are what the next Restart takes.
	Options Options
	// Took is how long the last start lasted until istiod answered.
	Took time.Duration

	folder string
	// temporary is true when the folder is nobody else's to remove.
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
	if err := i.settle(p); err != nil {
		return nil, err
	}
	if err := i.Install(ctx); err != nil {
		return nil, errors.Join(err, i.Stop())
	}
	// istiod serves the injector only where its templates are there at the start.
	if o.Injector != nil {
		if err := i.writeInjector(ctx, *o.Injector); err != nil {
			return nil, errors.Join(err, i.Stop())
		}
	}
	if err := i.Restart(ctx); err != nil {
		return nil, errors.Join(err, i.Stop())
	}
	if o.Injector != nil {
		if err := i.awaitBundles(ctx); err != nil {
			return nil, errors.Join(err, i.Stop())
		}
	}
	return i, nil
}

// settle makes the folders. Those of a control plane that was started are
// removed with it, also when this process is killed.
func (i *Istiod) settle(p *controlplane.Plane) (err error) {
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

// Restart ends istiod where it runs, kindly, and starts it at the same address
// with Options as they are now.
func (i *Istiod) Restart(ctx context.Context) error {
	if i.process != nil {
		i.process.End(syscall.SIGTERM)
	}
	begun := time.Now()
	if err := i.writeCA(); err != nil {
		return err
	}
	env := append(i.Environment(), "ROOT_CA_DIR="+i.caFolder())
	for _, name := range slices.Sorted(maps.Keys(i.Options.Env)) {
		env = append(env, name+"="+i.Options.Env[name])
	}
	var err error
	if i.process, err = process.Start(process.Options{
		Name: "istiod", Program: i.program, Arguments: i.Flags(), Env: env, Folder: i.folder, Log: i.log(),
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := i.process.Await(ctx, i.ready); err != nil {
		return err
	}
	i.Took = time.Since(begun)
	return nil
}

// Kill ends istiod without a warning, as a node's end would.
func (i *Istiod) Kill() {
	if i.process != nil {
		i.process.End(syscall.SIGKILL)
	}
}

// Stop ends istiod and removes what it left on disk.
func (i *Istiod) Stop() error {
	if i.process != nil {
		i.process.End(syscall.SIGTERM)
	}
	if i.temporary {
		return os.RemoveAll(i.folder)
	}
	return nil
}

// Dump writes the end of istiod's log.
func (i *Istiod) Dump(w io.Writer) {
	_, _ = fmt.Fprintf(w, "--- istiod:\n%s\n", controlplane.Tail(i.log(), 40))
}

func (i *Istiod) log() string { return filepath.Join(i.logs, "istiod-"+i.revision()+".log") }

// ready is nil when istiod is, with the roots of the plugged-in authority.
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

// Main runs the tests of a package with a control plane and istiod, which use is
// told of, and returns the status to exit with.
func Main(tests interface{ Run() int }, o Options, use func(admin *rest.Config, istiod *Istiod)) int {
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
	fmt.Fprintf(os.Stderr, "istiod answers after %s\n", istiod.Took.Round(time.Millisecond))
	use(admin, istiod)
	status := tests.Run()
	if status != 0 {
		istiod.Dump(os.Stderr)
	}
	return status
}
