package admission

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
	"strings"
)

// plane is a control plane: the one that test/cluster starts, or a given one.
type plane struct {
	// The fields of the harness's announcement.
	Kubeconfig, Kubectl, Logs string

	command *exec.Cmd
	leash   io.Closer
}

// harness runs a command of test/cluster.
func harness(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "go", append([]string{"-C", "../../cluster", "run", "."}, arguments...)...)
	command.Stderr = os.Stderr // it shows the progress of a build
	return command
}

// tool returns the path of a program that test/cluster builds.
func tool(ctx context.Context, name string) (string, error) {
	out, err := harness(ctx, "bin", name).Output()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func startPlane(ctx context.Context) (*plane, error) {
	if path := os.Getenv("KUBECONFIG"); path != "" {
		kubectl, err := tool(ctx, "kubectl")
		return &plane{Kubeconfig: path, Kubectl: kubectl}, err
	}
	// It ends with its standard input, so also when this process is killed; and
	// not with the context, for it has to clean up.
	command := harness(context.WithoutCancel(ctx), "up", "--controller-manager")
	leash, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &plane{command: command, leash: leash}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, p)
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *plane) stop() error {
	if p.command == nil {
		return nil
	}
	return errors.Join(p.leash.Close(), p.command.Wait())
}

// dump writes the ends of the components' logs.
func (p *plane) dump(w io.Writer) {
	if p.Logs == "" {
		return
	}
	files, err := filepath.Glob(filepath.Join(p.Logs, "*"))
	if err != nil {
		return
	}
	for _, file := range files {
		_, _ = fmt.Fprintf(w, "--- %s:\n%s\n", filepath.Base(file), tail(file, 15))
	}
}

// tail returns the last lines of a file.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
