//go:build guides

package guides

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/test/framework/process"
)

// timeout limits the preparation, with room for a busy machine.
const timeout = 3 * time.Minute

// Environment is the cluster in which pages run.
type Environment struct {
	programs    map[string]string
	folder      string
	plane       *controlplane.Plane
	node        *process.Process
	istioFolder string // the folder of Istio's charts
	started     time.Time
	// initialObjects are the objects that exist before the first page, by kind.
	initialObjects map[string]map[string]bool
}

// startEnvironment starts the cluster, in the namespaces that runOutside created.
func startEnvironment(ctx context.Context, programs map[string]string) (*Environment, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	env := &Environment{programs: programs, started: time.Now()}
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"namespaces", env.prepareNamespaces},
		{"control plane", env.startPlane},
		{"CRDs of Emissary", env.installCRDs},
		{"node", env.startNode},
		{"Istio, by its charts", env.installIstio},
		{"Isthmus, by its chart", env.installIsthmus},
	}
	for _, step := range steps {
		if err := step.do(ctx); err != nil {
			return env, fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(os.Stderr, "%5.1fs %s\n", time.Since(env.started).Seconds(), step.name)
	}
	var err error
	env.initialObjects, err = env.listObjects(ctx)
	return env, err
}

// prepareNamespaces creates the folders, and mounts /proc and starts the loopback interface
// of the new namespaces.
func (env *Environment) prepareNamespaces(ctx context.Context) (err error) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if env.folder, err = os.MkdirTemp("", "cluster-"); err != nil {
		return err
	}
	if err := os.Chmod(env.folder, 0o755); err != nil {
		return err
	}
	for _, folder := range []string{"bin", "work", "node"} {
		if err := os.Mkdir(filepath.Join(env.folder, folder), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"kubectl", "helm", "isthmus", "promtool"} {
		if err := os.Symlink(env.programs[name], filepath.Join(env.folder, "bin", name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"samples", "charts"} {
		if err := os.Symlink(filepath.Join(root(), name), filepath.Join(env.folder, "work", name)); err != nil {
			return err
		}
	}
	if env.istioFolder, err = istio.Module(ctx); err != nil {
		return err
	}
	return runCommand(ctx, "", env.programs["stand-in-node"], "loopback")
}

func (env *Environment) startPlane(ctx context.Context) (err error) {
	env.plane, err = controlplane.Start(ctx, "--controller-manager")
	return err
}

func (env *Environment) installCRDs(ctx context.Context) error {
	return env.kubectl(ctx, "", "apply", "--server-side", "-f", filepath.Join(root(), "test", "guides", "testdata"))
}

func (env *Environment) startNode(ctx context.Context) error {
	admin, err := env.plane.Admin()
	if err != nil {
		return err
	}
	server, err := url.Parse(admin.Host)
	if err != nil {
		return err
	}
	settings, err := json.Marshal(map[string]any{
		"kubeconfig": env.plane.Kubeconfig, "apiServer": server.Host, "folder": filepath.Join(env.folder, "node"), "images": listImages(env.programs),
	})
	if err != nil {
		return err
	}
	path := filepath.Join(env.folder, "node.json")
	if err := os.WriteFile(path, settings, 0o600); err != nil {
		return err
	}
	env.node, err = process.Start(process.Options{
		Name: "node", Program: env.programs["stand-in-node"], Arguments: []string{"-settings", path}, Log: filepath.Join(env.folder, "node.log"),
	})
	if err != nil {
		return err
	}
	return env.node.AwaitReady(ctx, func(ctx context.Context) error {
		return env.kubectl(ctx, "", "wait", "--for=condition=Ready", "node/stand-in", "--timeout=2s")
	})
}

// installIstio installs Istio as its documentation says.
func (env *Environment) installIstio(ctx context.Context) error {
	charts := filepath.Join(env.istioFolder, "manifests", "charts")
	err := env.helm(ctx, "install", "istio-base", filepath.Join(charts, "base"), "--namespace", "istio-system", "--create-namespace")
	if err != nil {
		return err
	}
	return env.helm(ctx, "install", "istiod", filepath.Join(charts, "istio-control", "istio-discovery"), "--namespace", "istio-system",
		"--set", "global.hub=docker.io/istio,global.tag="+istioTag+",autoscaleEnabled=false", "--wait")
}

func (env *Environment) installIsthmus(ctx context.Context) error {
	return env.helm(ctx, "install", "isthmus", filepath.Join(root(), "charts", "isthmus"), "--namespace", "isthmus-system", "--create-namespace", "--wait")
}

// pageEnvironment returns the environment variables of pages.
func (env *Environment) pageEnvironment() []string {
	return []string{
		"PATH=" + filepath.Join(env.folder, "bin") + ":" + os.Getenv("PATH"), "HOME=" + filepath.Join(env.folder, "work"),
		"KUBECONFIG=" + env.plane.Kubeconfig, "ISTIO_CHARTS=" + filepath.Join(env.istioFolder, "manifests", "charts"), "TERM=dumb", "LC_ALL=C.UTF-8",
	}
}

func (env *Environment) kubectl(ctx context.Context, stdin string, arguments ...string) error {
	_, err := env.output(ctx, stdin, "kubectl", arguments...)
	return err
}

func (env *Environment) helm(ctx context.Context, arguments ...string) error {
	_, err := env.output(ctx, "", "helm", arguments...)
	return err
}

// output runs a program as the administrator and returns its output.
func (env *Environment) output(ctx context.Context, stdin, name string, arguments ...string) (string, error) {
	c := exec.CommandContext(ctx, env.programs[name], arguments...)
	c.Env, c.Stdin = env.pageEnvironment(), strings.NewReader(stdin)
	out, err := c.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, exit.Stderr)
	}
	return string(out), err
}

func runCommand(ctx context.Context, stdin, program string, arguments ...string) error {
	c := exec.CommandContext(ctx, program, arguments...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, out)
	}
	return nil
}

// stop removes the folder of the environment; processes end with their namespace.
func (env *Environment) stop() error {
	var errs []error
	if env.node != nil {
		env.node.End(syscall.SIGKILL)
	}
	if env.plane != nil {
		errs = append(errs, env.plane.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(env.folder))...)
}

// dump writes the state of pods and Events, and the ends of all logs.
func (env *Environment) dump(out io.Writer) {
	if env.plane == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, arguments := range [][]string{{"get", "pods", "-A", "-o", "wide"}, {"get", "events", "-A"}} {
		if text, err := env.output(ctx, "", "kubectl", arguments...); err == nil {
			_, _ = fmt.Fprintf(out, "--- kubectl %s:\n%s", strings.Join(arguments, " "), text)
		}
	}
	logs, err := filepath.Glob(filepath.Join(env.folder, "node", "logs", "*.log"))
	if err != nil {
		return
	}
	for _, log := range append(logs, filepath.Join(env.folder, "node.log")) {
		_, _ = fmt.Fprintf(out, "--- %s:\n%s\n", filepath.Base(log), controlplane.Tail(log, 15))
	}
}
