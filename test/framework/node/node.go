// Package node stands for a cluster that runs pods: the one that KUBECONFIG names, or one
// of a single node that test/tools/cluster starts for as long as the test runs. Everything
// reaches pods through the API server only, so the same test runs on any cluster that
// holds the images of "cluster images".
//
// Tiers: test/e2e.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// Names of what is installed.
const (
	// Release and Namespace are Isthmus', as in its README.
	Release   = "isthmus"
	Namespace = "isthmus-system"
	// IstioNamespace is istiod's.
	IstioNamespace = "istio-system"
	// istioTag is that of the images pilot and proxyv2; see test/tools/cluster.
	istioTag = "1.31.0-dev"
)

// MaxPods is how many pods the node takes: enough to roll 200 at once.
const MaxPods = 500

// Cluster is a cluster that runs pods.
type Cluster struct {
	*controlplane.Plane
	// Admin reaches the API server as its administrator.
	Admin *rest.Config
	// Client is Admin's.
	Client kubernetes.Interface
	// Owned says that the cluster was started here, so that its components may be
	// killed and Istio is ours to install.
	Owned bool
	// Chart is the packaged chart of Isthmus.
	Chart string

	folder   string
	programs map[string]string
}

// Start starts a cluster, or takes the one of KUBECONFIG, and packages Isthmus'
// chart, with progress on standard error.
func Start(ctx context.Context) (*Cluster, error) {
	begun := time.Now()
	p, err := controlplane.Start(ctx, "--node", fmt.Sprintf("--max-pods=%d", MaxPods))
	if err != nil {
		return nil, err
	}
	c := &Cluster{Plane: p, Owned: p.Logs != "", programs: map[string]string{}}
	if err := c.prepare(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	c.tell(begun, "cluster %s", c.Admin.Host)
	return c, nil
}

func (c *Cluster) prepare(ctx context.Context) (err error) {
	if c.Admin, err = c.Plane.Admin(); err != nil {
		return err
	}
	if c.Client, err = kubernetes.NewForConfig(c.Admin); err != nil {
		return err
	}
	for _, name := range []string{"helm", "kubectl"} {
		if c.programs[name], err = controlplane.Tool(ctx, name); err != nil {
			return err
		}
	}
	// The folder of a cluster of ours goes with it, whatever becomes of this process.
	if c.folder, err = os.MkdirTemp(c.DataDir, "isthmus-node-"); err != nil {
		return err
	}
	said, err := c.Helm(ctx, "package", filepath.Join(root(), "charts", "isthmus"), "--destination", c.folder)
	if err != nil {
		return err
	}
	_, path, found := strings.Cut(strings.TrimSpace(said), "saved it to: ")
	if !found {
		return fmt.Errorf("helm package said %q", said)
	}
	c.Chart = path
	return nil
}

// Stop ends a cluster that was started here.
func (c *Cluster) Stop() error {
	return errors.Join(c.Plane.Stop(), os.RemoveAll(c.folder))
}

// InstallIstio installs istiod by Istio's charts, as Istio's documentation says,
// and leaves alone an istiod that is there. The values are those of istiod's chart,
// as "name=value".
func (c *Cluster) InstallIstio(ctx context.Context, values ...string) error {
	begun := time.Now()
	if _, err := c.Kubectl(ctx, "", "--namespace", IstioNamespace, "get", "deployment", "istiod"); err == nil {
		return nil
	}
	module, err := istio.Module(ctx)
	if err != nil {
		return err
	}
	charts := filepath.Join(module, "manifests", "charts")
	if _, err := c.Helm(ctx, "install", "istio-base", filepath.Join(charts, "base"), "--namespace", IstioNamespace, "--create-namespace"); err != nil {
		return err
	}
	arguments := []string{
		"upgrade", "--install", "istiod", filepath.Join(charts, "istio-control", "istio-discovery"), "--namespace", IstioNamespace, "--wait", "--timeout=5m",
		// istiod asks for half a CPU and 2 GiB, which here are the edges'.
		"--set", "global.hub=docker.io/istio,global.tag=" + istioTag + ",autoscaleEnabled=false,resources.requests.cpu=100m,resources.requests.memory=256Mi",
	}
	if _, err := c.Helm(ctx, append(arguments, set(values)...)...); err != nil {
		return err
	}
	c.tell(begun, "istiod, by its chart")
	return nil
}

// InstallIsthmus installs Isthmus by its packaged chart, as its README says, or
// upgrades the release to these values, "name=value", alone.
func (c *Cluster) InstallIsthmus(ctx context.Context, values ...string) error {
	begun := time.Now()
	arguments := []string{"upgrade", "--install", Release, c.Chart, "--namespace", Namespace, "--create-namespace", "--reset-values", "--wait", "--timeout=5m"}
	if _, err := c.Helm(ctx, append(arguments, set(values)...)...); err != nil {
		return err
	}
	c.tell(begun, "Isthmus, by its chart")
	return nil
}

// UninstallIsthmus takes the release away.
func (c *Cluster) UninstallIsthmus(ctx context.Context) error {
	_, err := c.Helm(ctx, "uninstall", Release, "--namespace", Namespace, "--wait", "--timeout=5m")
	return err
}

func set(values []string) []string {
	var arguments []string
	for _, value := range values {
		arguments = append(arguments, "--set", value)
	}
	return arguments
}

// Helm runs Helm as the administrator, and returns what it prints.
func (c *Cluster) Helm(ctx context.Context, arguments ...string) (string, error) {
	return c.run(ctx, "", "helm", arguments...)
}

// Kubectl runs kubectl as the administrator with this standard input, and returns
// what it prints.
func (c *Cluster) Kubectl(ctx context.Context, in string, arguments ...string) (string, error) {
	return c.run(ctx, in, "kubectl", arguments...)
}

// Apply applies manifests in a namespace.
func (c *Cluster) Apply(ctx context.Context, namespace, manifests string) error {
	_, err := c.Kubectl(ctx, manifests, "apply", "--namespace", namespace, "--server-side", "--force-conflicts", "-f", "-")
	return err
}

func (c *Cluster) run(ctx context.Context, in, name string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, c.programs[name], arguments...)
	command.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	command.Stdin = strings.NewReader(in)
	out, err := command.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

// Component gives an order about a component of the cluster: kill, restart, pause
// or resume; etcd, kube-apiserver, kube-controller-manager, kube-scheduler,
// containerd, kubelet or kube-proxy. Only a cluster that is Owned takes any.
func (c *Cluster) Component(ctx context.Context, order, name string) error {
	if !c.Owned {
		return fmt.Errorf("%s %s: the cluster of KUBECONFIG is not this test's", order, name)
	}
	return controlplane.Component(ctx, c.DataDir, order, name)
}

// Dump writes how the pods are, what happened last, and the ends of the logs.
func (c *Cluster) Dump(w io.Writer) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, arguments := range [][]string{
		{"get", "pods", "-A", "-o", "wide"}, {"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"-n", Namespace, "logs", "-l", "app.kubernetes.io/name=isthmus", "--tail=40", "--prefix", "--ignore-errors"},
	} {
		if text, err := c.Kubectl(ctx, "", arguments...); err == nil {
			lines := strings.Split(strings.TrimSpace(text), "\n")
			_, _ = fmt.Fprintf(w, "--- kubectl %s:\n%s\n", strings.Join(arguments, " "), strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
	}
	c.Plane.Dump(w)
}

// tell says on standard error what took how long.
func (*Cluster) tell(begun time.Time, format string, arguments ...any) {
	_, _ = fmt.Fprintf(os.Stderr, "%5.1fs  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, arguments...))
}

// root is the repository's.
func root() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "..")
}
