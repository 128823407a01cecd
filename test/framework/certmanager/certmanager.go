// Package certmanager stands for cert-manager: its real controllers, as a process beside
// a control plane of package controlplane. Its webhook does not run, so only the schema
// of the CRDs validates what tests write.
//
// Tiers: test/mesh.
package certmanager

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
	"time"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// Controllers is a process that runs cert-manager's controllers.
type Controllers struct {
	// Log is the path of the log.
	Log string

	command *exec.Cmd
	stdin   io.Closer // the process ends when it is closed
	folder  string
}

// Start installs cert-manager's CRDs into the cluster of a kubeconfig and starts the
// controllers. Programs that are missing are built first, with progress on standard
// error. The controllers end with this process.
func Start(ctx context.Context, kubeconfig string) (*Controllers, error) {
	program, err := controlplane.Tool(ctx, "cert-manager-controllers")
	if err != nil {
		return nil, err
	}
	if err := install(ctx, kubeconfig); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "cert-manager-")
	if err != nil {
		return nil, err
	}
	c := &Controllers{Log: filepath.Join(folder, "log"), folder: folder}
	if err := c.launch(ctx, program, kubeconfig); err != nil {
		return nil, errors.Join(err, errors.New(controlplane.Tail(c.Log, 15)), c.Stop())
	}
	return c, nil
}

// launch starts the program and waits until it reports that it is running.
func (c *Controllers) launch(ctx context.Context, program, kubeconfig string) error {
	log, err := os.Create(c.Log)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	// The process ends with its standard input, not with the context.
	command := exec.CommandContext(context.WithoutCancel(ctx), program, "--kubeconfig", kubeconfig)
	command.Stderr = log
	stdin, err := command.StdinPipe()
	if err != nil {
		return err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start cert-manager's controllers: %w", err)
	}
	c.command, c.stdin = command, stdin
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || !strings.HasPrefix(line, "running ") {
		return fmt.Errorf("start cert-manager's controllers: want running, got %q: %w", line, err)
	}
	return nil
}

// Stop ends the controllers and waits for their exit.
func (c *Controllers) Stop() error {
	defer func() { _ = os.RemoveAll(c.folder) }()
	if c.command == nil {
		return nil
	}
	closeErr := c.stdin.Close()
	deadline := time.AfterFunc(10*time.Second, func() { _ = c.command.Process.Kill() })
	defer deadline.Stop()
	return errors.Join(closeErr, c.command.Wait())
}

// install applies cert-manager's CRDs and waits until the API server serves them.
func install(ctx context.Context, kubeconfig string) error {
	kubectl, err := controlplane.Tool(ctx, "kubectl")
	if err != nil {
		return err
	}
	folder, err := crds(ctx)
	if err != nil {
		return err
	}
	for _, arguments := range [][]string{
		{"apply", "--server-side", "--filename", folder},
		{"wait", "--for=condition=Established", "--timeout=60s", "--filename", folder},
	} {
		out, err := exec.CommandContext(ctx, kubectl, append([]string{"--kubeconfig", kubeconfig}, arguments...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s cert-manager's CRDs: %w: %s", arguments[0], err, out)
		}
	}
	return nil
}

// crds returns the folder of cert-manager's CRDs, which lie in its module as
// plain manifests, at the version of the controllers.
func crds(ctx context.Context) (string, error) {
	_, file, _, _ := runtime.Caller(0)
	folder := filepath.Join(filepath.Dir(file), "..", "..", "tools", "cert-manager-controllers")
	const path = "github.com/cert-manager/cert-manager"
	command := exec.CommandContext(ctx, "go", "-C", folder, "mod", "download", "-json", path)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("find the module %s: %w", path, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", fmt.Errorf("find the module %s: %w", path, err)
	}
	return filepath.Join(module.Dir, "deploy", "crds"), nil
}
