//go:build guides

package guides

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// programsVariable is the environment variable that passes the programs' paths to the
// process in namespaces of its own.
const programsVariable = "ISTHMUS_GUIDES_PROGRAMS"

// env is shared by all pages. TestMain sets it.
var env *Environment

func TestMain(m *testing.M) {
	if text := os.Getenv(programsVariable); text != "" {
		os.Exit(runInside(m, text))
	}
	os.Exit(runOutside())
}

// runOutside builds every program, because there is no network inside, and runs this test
// binary again in namespaces of its own.
func runOutside() int {
	folder, err := os.MkdirTemp("", "isthmus-guides-")
	if err != nil {
		return reportError(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	programs, err := buildPrograms(context.Background(), folder)
	if err != nil {
		return reportError(err)
	}
	text, err := json.Marshal(programs)
	if err != nil {
		return reportError(err)
	}
	// The kernel kills the child when the thread that started it ends.
	runtime.LockOSThread()
	// This folder contains everything that an environment leaves behind when it is killed.
	if err := os.Chmod(folder, 0o755); err != nil {
		return reportError(err)
	}
	command, err := startInNamespaces(programsVariable+"="+string(text), "TMPDIR="+folder)
	if err != nil {
		return reportError(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		_ = command.Process.Kill() // and with it its whole process namespace
	}()
	err = command.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	default:
		return reportError(err)
	}
}

// startInNamespaces starts this test binary in namespaces of its own: as root, or, if that
// is not allowed, as root of a user namespace.
func startInNamespaces(variables ...string) (*exec.Cmd, error) {
	for _, flags := range []uintptr{0, syscall.CLONE_NEWUSER} {
		command := exec.Command("/proc/self/exe", os.Args[1:]...)
		command.Stdout, command.Stderr = os.Stdout, os.Stderr
		command.Env = append(os.Environ(), variables...)
		command.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | flags,
			Pdeathsig:  syscall.SIGKILL,
		}
		if flags != 0 {
			command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		err := command.Start()
		switch {
		case err == nil:
			return command, nil
		case flags != 0 || !errors.Is(err, syscall.EPERM):
			return nil, fmt.Errorf("make namespaces for the guides (be root with CAP_SYS_ADMIN, or allow unprivileged user namespaces): %w", err)
		}
	}
	return nil, nil
}

// runInside starts the environment and runs the tests in it.
func runInside(m *testing.M, text string) int {
	programs := map[string]string{}
	if err := json.Unmarshal([]byte(text), &programs); err != nil {
		return reportError(err)
	}
	_ = os.Unsetenv(programsVariable)
	_ = os.Unsetenv("KUBECONFIG")
	e, err := startEnvironment(context.Background(), programs)
	if err != nil {
		if e != nil {
			e.dump(os.Stderr)
			_ = e.stop()
		}
		return reportError(err)
	}
	env = e
	status := m.Run()
	if err := e.stop(); err != nil {
		return reportError(err)
	}
	return status
}

func reportError(err error) int {
	fmt.Fprintln(os.Stderr, "guides:", err)
	return 1
}

// tools are the programs of test/tools/cluster that the environment consists of.
var tools = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "pilot-discovery", "pilot-agent", "helm",
	"stand-in-node", "stand-in-edge", "stand-in-service", "stand-in-cni", "promtool",
}

// buildPrograms returns the paths of all programs.
func buildPrograms(ctx context.Context, folder string) (map[string]string, error) {
	programs := map[string]string{}
	for _, name := range tools {
		path, err := controlplane.Tool(ctx, name)
		if err != nil {
			return nil, err
		}
		programs[name] = path
	}
	for _, name := range []string{"isthmus", "isthmus-publish"} {
		programs[name] = filepath.Join(folder, name)
		command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", programs[name], "./cmd/"+name)
		command.Dir, command.Env = root(), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := command.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	return programs, nil
}

// root returns the root folder of the repository.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}
