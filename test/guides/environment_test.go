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

// patience is how long a step of the preparation may take on a busy machine.
const patience = 3 * time.Minute

// World is the cluster in which pages run.
type World struct {
	programs map[string]string
	folder   string
	plane    *controlplane.Plane
	node     *process.Process
	istio    string // the folder of Istio's charts
	begun    time.Time
	// before are the objects that no page made, by kind.
	before map[string]map[string]bool
}

// start makes the world, in the namespaces that outside made.
func start(ctx context.Context, programs map[string]string) (*World, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w := &World{programs: programs, begun: time.Now()}
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"namespaces", w.settle},
		{"control plane", w.startPlane},
		{"CRDs of Emissary", w.installCRDs},
		{"node", w.startNode},
		{"Istio, by its charts", w.installIstio},
		{"Isthmus, by its chart", w.installIsthmus},
	}
	for _, step := range steps {
		if err := step.do(ctx); err != nil {
			return w, fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(os.Stderr, "%5.1fs %s\n", time.Since(w.begun).Seconds(), step.name)
	}
	var err error
	w.before, err = w.objects(ctx)
	return w, err
}

// settle makes the folders, and has /proc and the loopback be those of the new
// namespaces.
func (w *World) settle(ctx context.Context) (err error) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if w.folder, err = os.MkdirTemp("", "isthmus-world-"); err != nil {
		return err
	}
	if err := os.Chmod(w.folder, 0o755); err != nil {
		return err
	}
	for _, folder := range []string{"bin", "work", "node"} {
		if err := os.Mkdir(filepath.Join(w.folder, folder), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"kubectl", "helm", "isthmus", "promtool"} {
		if err := os.Symlink(w.programs[name], filepath.Join(w.folder, "bin", name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"samples", "charts"} {
		if err := os.Symlink(filepath.Join(root(), name), filepath.Join(w.folder, "work", name)); err != nil {
			return err
		}
	}
	if w.istio, err = istio.Module(ctx); err != nil {
		return err
	}
	return command(ctx, "", w.programs["stand-in-node"], "loopback")
}

func (w *World) startPlane(ctx context.Context) (err error) {
	w.plane, err = controlplane.Start(ctx, "--controller-manager")
	return err
}

func (w *World) installCRDs(ctx context.Context) error {
	return w.kubectl(ctx, "", "apply", "--server-side", "-f", filepath.Join(root(), "test", "guides", "testdata"))
}

func (w *World) startNode(ctx context.Context) error {
	admin, err := w.plane.Admin()
	if err != nil {
		return err
	}
	server, err := url.Parse(admin.Host)
	if err != nil {
		return err
	}
	settings, err := json.Marshal(map[string]any{
		"kubeconfig": w.plane.Kubeconfig, "apiServer": server.Host, "folder": filepath.Join(w.folder, "node"), "images": images(w.programs),
	})
	if err != nil {
		return err
	}
	path := filepath.Join(w.folder, "node.json")
	if err := os.WriteFile(path, settings, 0o600); err != nil {
		return err
	}
	w.node, err = process.Start(process.Options{
		Name: "node", Program: w.programs["stand-in-node"], Arguments: []string{"-settings", path}, Log: filepath.Join(w.folder, "node.log"),
	})
	if err != nil {
		return err
	}
	return w.node.AwaitReady(ctx, func(ctx context.Context) error {
		return w.kubectl(ctx, "", "wait", "--for=condition=Ready", "node/stand-in", "--timeout=2s")
	})
}

// installIstio installs Istio as its documentation says.
func (w *World) installIstio(ctx context.Context) error {
	charts := filepath.Join(w.istio, "manifests", "charts")
	err := w.helm(ctx, "install", "istio-base", filepath.Join(charts, "base"), "--namespace", "istio-system", "--create-namespace")
	if err != nil {
		return err
	}
	return w.helm(ctx, "install", "istiod", filepath.Join(charts, "istio-control", "istio-discovery"), "--namespace", "istio-system",
		"--set", "global.hub=docker.io/istio,global.tag="+istioTag+",autoscaleEnabled=false", "--wait")
}

func (w *World) installIsthmus(ctx context.Context) error {
	return w.helm(ctx, "install", "isthmus", filepath.Join(root(), "charts", "isthmus"), "--namespace", "isthmus-system", "--create-namespace", "--wait")
}

// env is the environment of pages.
func (w *World) env() []string {
	return []string{
		"PATH=" + filepath.Join(w.folder, "bin") + ":" + os.Getenv("PATH"), "HOME=" + filepath.Join(w.folder, "work"),
		"KUBECONFIG=" + w.plane.Kubeconfig, "ISTIO_CHARTS=" + filepath.Join(w.istio, "manifests", "charts"), "TERM=dumb", "LC_ALL=C.UTF-8",
	}
}

func (w *World) kubectl(ctx context.Context, in string, arguments ...string) error {
	_, err := w.output(ctx, in, "kubectl", arguments...)
	return err
}

func (w *World) helm(ctx context.Context, arguments ...string) error {
	_, err := w.output(ctx, "", "helm", arguments...)
	return err
}

// output runs a program as the administrator.
func (w *World) output(ctx context.Context, in, name string, arguments ...string) (string, error) {
	c := exec.CommandContext(ctx, w.programs[name], arguments...)
	c.Env, c.Stdin = w.env(), strings.NewReader(in)
	out, err := c.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, exit.Stderr)
	}
	return string(out), err
}

func command(ctx context.Context, in, program string, arguments ...string) error {
	c := exec.CommandContext(ctx, program, arguments...)
	c.Stdin = strings.NewReader(in)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, out)
	}
	return nil
}

// stop removes what was written; processes end with their namespace.
func (w *World) stop() error {
	var errs []error
	if w.node != nil {
		w.node.End(syscall.SIGKILL)
	}
	if w.plane != nil {
		errs = append(errs, w.plane.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(w.folder))...)
}

// dump writes how the pods are, and the ends of all logs.
func (w *World) dump(out io.Writer) {
	if w.plane == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, arguments := range [][]string{{"get", "pods", "-A", "-o", "wide"}, {"get", "events", "-A"}} {
		if text, err := w.output(ctx, "", "kubectl", arguments...); err == nil {
			_, _ = fmt.Fprintf(out, "--- kubectl %s:\n%s", strings.Join(arguments, " "), text)
		}
	}
	logs, err := filepath.Glob(filepath.Join(w.folder, "node", "logs", "*.log"))
	if err != nil {
		return
	}
	for _, log := range append(logs, filepath.Join(w.folder, "node.log")) {
		_, _ = fmt.Fprintf(out, "--- %s:\n%s\n", filepath.Base(log), controlplane.Tail(log, 15))
	}
}
