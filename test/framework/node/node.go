// Package node stands for a cluster that runs pods: the one that KUBECONFIG names, or one
// of a single node that test/tools/cluster starts for as long as the test runs. Everything
// reaches pods through the API server only, so the same test runs on any cluster whose
// nodes have the images that `cluster images` (test/tools/cluster) builds.
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
	// Release and Namespace are those of Isthmus, as in its README.
	Release   = "isthmus"
	Namespace = "isthmus-system"
	// IstioNamespace is the namespace of istiod.
	IstioNamespace = "istio-system"
	// istioTag is the tag of the images pilot and proxyv2; see test/tools/cluster.
	istioTag = "1.31.0-dev"
)

// MaxPods is the node's maximum number of pods: enough to restart 200 at once.
const MaxPods = 500

// Cluster is a cluster that runs pods.
type Cluster struct {
	*controlplane.Plane
	// Admin is the administrator's client configuration.
	Admin *rest.Config
	// Client is the administrator's client.
	Client kubernetes.Interface
	// Ephemeral is true if Start started the cluster, so that tests may kill its
	// components and install Istio.
	Ephemeral bool
	// Chart is the path of the packaged chart of Isthmus.
	Chart string

	folder   string
	programs map[string]string
}

// Start starts a cluster, or uses the one of KUBECONFIG, and packages the chart of
// Isthmus, with progress on standard error.
func Start(ctx context.Context) (*Cluster, error) {
	start := time.Now()
	p, err := controlplane.Start(ctx, "--node", fmt.Sprintf("--max-pods=%d", MaxPods))
	if err != nil {
		return nil, err
	}
	c := &Cluster{Plane: p, Ephemeral: p.Logs != "", programs: map[string]string{}}
	if err := c.prepare(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	c.reportDuration(start, "cluster %s", c.Admin.Host)
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
	// The folder of an ephemeral cluster is removed even if this process is killed.
	if c.folder, err = os.MkdirTemp(c.DataDir, "isthmus-node-"); err != nil {
		return err
	}
	output, err := c.Helm(ctx, "package", filepath.Join(repositoryRoot(), "charts", "isthmus"), "--destination", c.folder)
	if err != nil {
		return err
	}
	_, path, found := strings.Cut(strings.TrimSpace(output), "saved it to: ")
	if !found {
		return fmt.Errorf("helm package printed %q: want \"saved it to: <path>\"", output)
	}
	c.Chart = path
	return nil
}

// Stop stops the cluster if Start started it.
func (c *Cluster) Stop() error {
	return errors.Join(c.Plane.Stop(), os.RemoveAll(c.folder))
}

// InstallIstio installs istiod with Istio's charts, as in Istio's documentation. It does
// not change an istiod that exists. The values are those of istiod's chart, as
// "name=value".
func (c *Cluster) InstallIstio(ctx context.Context, values ...string) error {
	start := time.Now()
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
		// By default istiod requests half a CPU and 2 GiB, which the edges need here.
		"--set", "global.hub=docker.io/istio,global.tag=" + istioTag + ",autoscaleEnabled=false,resources.requests.cpu=100m,resources.requests.memory=256Mi",
	}
	if _, err := c.Helm(ctx, append(arguments, setFlags(values)...)...); err != nil {
		return err
	}
	c.reportDuration(start, "istiod, with its chart")
	return nil
}

// InstallIsthmus installs Isthmus with its packaged chart, as in its README, or upgrades
// the release. The values, as "name=value", replace all earlier ones.
func (c *Cluster) InstallIsthmus(ctx context.Context, values ...string) error {
	start := time.Now()
	arguments := []string{"upgrade", "--install", Release, c.Chart, "--namespace", Namespace, "--create-namespace", "--reset-values", "--wait", "--timeout=5m"}
	if _, err := c.Helm(ctx, append(arguments, setFlags(values)...)...); err != nil {
		return err
	}
	c.reportDuration(start, "Isthmus, with its chart")
	return nil
}

// UninstallIsthmus uninstalls the release.
func (c *Cluster) UninstallIsthmus(ctx context.Context) error {
	_, err := c.Helm(ctx, "uninstall", Release, "--namespace", Namespace, "--wait", "--timeout=5m")
	return err
}

func setFlags(values []string) []string {
	var arguments []string
	for _, value := range values {
		arguments = append(arguments, "--set", value)
	}
	return arguments
}

// Helm runs Helm as the administrator, and returns its standard output.
func (c *Cluster) Helm(ctx context.Context, arguments ...string) (string, error) {
	return c.run(ctx, "", "helm", arguments...)
}

// Kubectl runs kubectl as the administrator with this standard input, and returns its
// standard output.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, arguments ...string) (string, error) {
	return c.run(ctx, stdin, "kubectl", arguments...)
}

// Apply applies manifests in a namespace.
func (c *Cluster) Apply(ctx context.Context, namespace, manifests string) error {
	_, err := c.Kubectl(ctx, manifests, "apply", "--namespace", namespace, "--server-side", "--force-conflicts", "-f", "-")
	return err
}

func (c *Cluster) run(ctx context.Context, stdin, name string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, c.programs[name], arguments...)
	command.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	command.Stdin = strings.NewReader(stdin)
	out, err := command.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

// ControlComponent applies an action (kill, restart, pause or resume) to a component of the
// cluster: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd,
// kubelet or kube-proxy. The cluster must be Ephemeral.
func (c *Cluster) ControlComponent(ctx context.Context, action, name string) error {
	if !c.Ephemeral {
		return fmt.Errorf("%s %s: the cluster of KUBECONFIG is not this test's", action, name)
	}
	return controlplane.ControlComponent(ctx, c.DataDir, action, name)
}

// Dump writes the pods, the latest Events, and the last lines of the logs.
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

// reportDuration writes a step and its duration to standard error.
func (*Cluster) reportDuration(start time.Time, format string, arguments ...any) {
	_, _ = fmt.Fprintf(os.Stderr, "%5.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, arguments...))
}

// repositoryRoot is the path of the repository.
func repositoryRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}
