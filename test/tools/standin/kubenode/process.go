package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// process is the process of a running container.
type process struct {
	command *exec.Cmd
	started time.Time
	// done is closed when the process has ended. code is its exit code, set before.
	done chan struct{}
	code int
}

// startProcess starts a container in a network namespace and appends its output to a
// file.
func startProcess(c containerSpec, network uintptr, output string) (*process, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Dup(int(network))
	if err != nil {
		return nil, err
	}
	namespaceFile := os.NewFile(uintptr(fd), "network")
	command := exec.Command("/proc/self/exe", "container")
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(data), out, out
	command.ExtraFiles = []*os.File{namespaceFile}
	// Orphaned processes end with the PID namespace that test/guides creates.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &process{command: command, started: time.Now(), done: make(chan struct{})}
	err = command.Start()
	_ = namespaceFile.Close()
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	go func() {
		err := command.Wait()
		_ = out.Close()
		if err != nil {
			p.code = max(command.ProcessState.ExitCode(), 1)
		}
		close(p.done)
	}()
	runtime.KeepAlive(namespaceFile)
	return p, nil
}

// terminate sends SIGTERM to the container, and SIGKILL if it still runs after grace.
func (p *process) terminate(grace time.Duration) {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		_ = p.command.Process.Kill()
		<-p.done
	}
}
