// Package controlplane stands for a Kubernetes control plane: the one that KUBECONFIG
// names, or etcd and an API server that test/tools/cluster starts for as long as the test
// runs. No pod runs there. It also returns the paths of programs and images that
// test/tools/cluster builds.
//
// Tiers: all but unit tests.
package controlplane

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Plane is a control plane.
type Plane struct {
	// Kubeconfig is the path of the administrator's kubeconfig.
	Kubeconfig string `json:"kubeconfig"`
	// Logs is the folder of the components' logs, empty where the control plane
	// was given.
	Logs string `json:"logs"`
	// DataDir is the folder of all that the control plane writes, empty likewise.
	DataDir string `json:"dataDir"`

	command *exec.Cmd
	leash   io.Closer
	output  io.Reader
}

// Start starts a control plane, or takes the one of KUBECONFIG. The arguments
// are those of test/tools/cluster's command up, such as --controller-manager. What it
// builds first it builds with progress on standard error.
func Start(ctx context.Context, arguments ...string) (*Plane, error) {
	if path := os.Getenv("KUBECONFIG"); path != "" {
		return &Plane{Kubeconfig: path}, nil
	}
	// It ends with its standard input, so also when this process is killed; and
	// not with the context, for it has to clean up.
	command := harness(context.WithoutCancel(ctx), append([]string{"up"}, arguments...)...)
	leash, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &Plane{command: command, leash: leash, output: output}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, p)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a control plane (it says why above): %w", err), p.Stop())
	}
	return p, nil
}

// Main runs the tests of a package with a control plane, whose administrator use
// is told of, and returns the status to exit with.
func Main(tests interface{ Run() int }, use func(admin *rest.Config)) int {
	p, err := Start(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = p.Stop() }()
	admin, err := p.Admin()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	use(admin)
	return tests.Run()
}

// Stop ends a control plane that Start started, and waits until nothing of it is
// left.
func (p *Plane) Stop() error {
	if p.command == nil {
		return nil
	}
	closed := p.leash.Close()
	_, copied := io.Copy(io.Discard, p.output)
	return errors.Join(closed, copied, p.command.Wait())
}

// Admin is how to reach the API server as its administrator, with no limit on
// the rate of requests.
func (p *Plane) Admin() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", p.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.QPS = -1
	return config, nil
}

// Dump writes the ends of the components' logs.
func (p *Plane) Dump(w io.Writer) {
	if p.Logs == "" {
		return
	}
	files, err := filepath.Glob(filepath.Join(p.Logs, "*"))
	if err != nil {
		return
	}
	for _, file := range files {
		_, _ = fmt.Fprintf(w, "--- %s:\n%s\n", filepath.Base(file), Tail(file, 15))
	}
}

// Tool returns the path of a program that test/tools/cluster builds, such as helm.
func Tool(ctx context.Context, name string) (string, error) {
	out, err := harness(ctx, "bin", name).Output()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Image returns the path of the tarball of an image that test/tools/cluster makes.
func Image(ctx context.Context, name string) (string, error) {
	out, err := harness(ctx, "images", name).Output()
	if err != nil {
		return "", fmt.Errorf("make image %s (it says why above): %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Component gives an order about a component of a cluster that was started with
// --node, by its data folder; see test/tools/cluster.
func Component(ctx context.Context, data, order, name string) error {
	if err := harness(ctx, "component", "--data", data, order, name).Run(); err != nil {
		return fmt.Errorf("%s %s (it says why above): %w", order, name, err)
	}
	return nil
}

// Tail returns the last lines of a file.
func Tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// harness runs a command of test/tools/cluster, a module of its own.
func harness(ctx context.Context, arguments ...string) *exec.Cmd {
	_, here, _, _ := runtime.Caller(0)
	folder := filepath.Join(filepath.Dir(here), "..", "..", "tools", "cluster")
	command := exec.CommandContext(ctx, "go", append([]string{"-C", folder, "run", "."}, arguments...)...)
	command.Stderr = os.Stderr
	return command
}
