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

// Plane is a control plane of Kubernetes.
type Plane struct {
	// Kubeconfig is the path of the administrator's kubeconfig.
	Kubeconfig string `json:"kubeconfig"`
	// Logs is the folder of the components' logs. It is empty if KUBECONFIG names the
	// control plane.
	Logs string `json:"logs"`
	// DataDir is the folder of all files that the control plane writes. It is empty if
	// KUBECONFIG names the control plane.
	DataDir string `json:"dataDir"`

	command *exec.Cmd
	stdin   io.Closer
	output  io.Reader
}

// Start starts a control plane, or uses the one of KUBECONFIG. The arguments are those
// of the command up of test/tools/cluster, such as --controller-manager. It builds
// missing programs first, with progress on standard error.
func Start(ctx context.Context, arguments ...string) (*Plane, error) {
	if path := os.Getenv("KUBECONFIG"); path != "" {
		return &Plane{Kubeconfig: path}, nil
	}
	// The control plane ends when its standard input is closed, so also when this
	// process is killed. It does not end with the context, since it has to clean up.
	command := clusterCommand(context.WithoutCancel(ctx), append([]string{"up"}, arguments...)...)
	stdin, err := command.StdinPipe()
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
	p := &Plane{command: command, stdin: stdin, output: output}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, p)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a control plane (see its output above): %w", err), p.Stop())
	}
	return p, nil
}

// Main runs the tests of a package with a control plane and returns the exit status. It
// calls setUp with the administrator's configuration first. The arguments are those of
// Start.
func Main(tests interface{ Run() int }, setUp func(admin *rest.Config), arguments ...string) int {
	p, err := Start(context.Background(), arguments...)
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
	setUp(admin)
	return tests.Run()
}

// Stop stops a control plane that Start started, and waits until all of its processes
// have ended and its files are removed.
func (p *Plane) Stop() error {
	if p.command == nil {
		return nil
	}
	closeErr := p.stdin.Close()
	_, copyErr := io.Copy(io.Discard, p.output)
	return errors.Join(closeErr, copyErr, p.command.Wait())
}

// Admin returns the administrator's client configuration, without a rate limit.
func (p *Plane) Admin() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", p.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.QPS = -1
	return config, nil
}

// Dump writes the last lines of the components' logs.
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

// Tool returns the path of a program that test/tools/cluster builds, such as helm. It
// builds the program if it is missing.
func Tool(ctx context.Context, name string) (string, error) {
	out, err := clusterCommand(ctx, "bin", name).Output()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Image returns the path of the tarball of an image that test/tools/cluster builds. It
// builds the image if it is missing.
func Image(ctx context.Context, name string) (string, error) {
	out, err := clusterCommand(ctx, "images", name).Output()
	if err != nil {
		return "", fmt.Errorf("build image %s (see the output above): %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// ControlComponent applies an action, such as kill, to a component of a cluster that was
// started with --node. data is the DataDir of the cluster; see test/tools/cluster for
// the actions and components.
func ControlComponent(ctx context.Context, data, action, name string) error {
	if err := clusterCommand(ctx, "component", "--data", data, action, name).Run(); err != nil {
		return fmt.Errorf("%s %s (see the output above): %w", action, name, err)
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

// clusterCommand returns a command of test/tools/cluster, which is a module of its own.
func clusterCommand(ctx context.Context, arguments ...string) *exec.Cmd {
	_, file, _, _ := runtime.Caller(0)
	folder := filepath.Join(filepath.Dir(file), "..", "..", "tools", "cluster")
	command := exec.CommandContext(ctx, "go", append([]string{"-C", folder, "run", "."}, arguments...)...)
	command.Stderr = os.Stderr
	return command
}
