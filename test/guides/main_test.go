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

// programsVariable holds the programs' paths in the environment of the process that
// is in namespaces of its own.
const programsVariable = "ISTHMUS_GUIDES_PROGRAMS"

// world is what all pages share. TestMain sets it.
var world *World

func TestMain(m *testing.M) {
	if text := os.Getenv(programsVariable); text != "" {
		os.Exit(inside(m, text))
	}
	os.Exit(outside())
}

// outside builds every program, since there is no network inside, and runs this
// test binary again in namespaces of its own.
func outside() int {
	folder, err := os.MkdirTemp("", "isthmus-guides-")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	programs, err := build(context.Background(), folder)
	if err != nil {
		return fail(err)
	}
	text, err := json.Marshal(programs)
	if err != nil {
		return fail(err)
	}
	// The kernel ends the child with the thread that started it.
	runtime.LockOSThread()
	// Whatever is left inside of a world that was killed goes with this folder.
	if err := os.Chmod(folder, 0o755); err != nil {
		return fail(err)
	}
	command, err := enter(programsVariable+"="+string(text), "TMPDIR="+folder)
	if err != nil {
		return fail(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		_ = command.Process.Kill() // and with it all of its process namespace
	}()
	err = command.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	default:
		return fail(err)
	}
}

// enter starts this test binary in namespaces of its own: as root, or, where that
// is not allowed, as root of a user namespace.
func enter(variables ...string) (*exec.Cmd, error) {
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

// inside makes the world and runs the tests in it.
func inside(m *testing.M, text string) int {
	programs := map[string]string{}
	if err := json.Unmarshal([]byte(text), &programs); err != nil {
		return fail(err)
	}
	_ = os.Unsetenv(programsVariable)
	_ = os.Unsetenv("KUBECONFIG")
	w, err := start(context.Background(), programs)
	if err != nil {
		if w != nil {
			w.dump(os.Stderr)
			_ = w.stop()
		}
		return fail(err)
	}
	world = w
	status := m.Run()
	if err := w.stop(); err != nil {
		return fail(err)
	}
	return status
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "guides:", err)
	return 1
}

// tools are the programs of test/tools/cluster that the world consists of.
var tools = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "pilot-discovery", "pilot-agent", "helm",
	"stand-in-node", "stand-in-edge", "stand-in-service", "stand-in-cni", "promtool",
}

// build returns the paths of all programs.
func build(ctx context.Context, folder string) (map[string]string, error) {
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

// root is the repository's.
func root() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(here)))
}
