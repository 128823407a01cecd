package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// processID identifies one process. The start time is part of it, because PIDs are
// reused.
type processID struct {
	PID     int    `json:"pid"`
	Started string `json:"started"`
}

func identifyProcess(pid int) processID { return processID{PID: pid, Started: startTime(pid)} }

// isRunning reports whether exactly this process is running; a zombie is not.
func (p processID) isRunning() bool {
	return p.PID > 0 && p.Started != "" && startTime(p.PID) == p.Started
}

// terminate sends SIGTERM, and SIGKILL when the process has not ended after timeout.
func (p processID) terminate(timeout time.Duration) error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if !p.isRunning() {
			return nil
		}
		if err := syscall.Kill(p.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("terminate process %d: %w", p.PID, err)
		}
		for deadline := time.Now().Add(timeout); p.isRunning() && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if p.isRunning() {
		return fmt.Errorf("process %d does not end after SIGKILL", p.PID)
	}
	return nil
}

// startTime is the start time of a process in the system's own format; empty when the
// process has ended.
func startTime(pid int) string {
	if content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		// The second field is the program's name in parentheses, which may contain blanks.
		fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
		if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
			return ""
		}
		return fields[19]
	}
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		return ""
	}
	out, err := exec.CommandContext(context.Background(), "ps", "-o", "stat=,lstart=", "-p", strconv.Itoa(pid)).Output()
	state, started, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if err != nil || strings.HasPrefix(state, "Z") {
		return ""
	}
	return strings.TrimSpace(started)
}

// run runs a program and returns its output. The error contains its standard error.
func (d *demo) run(ctx context.Context, name string, arguments ...string) ([]byte, error) {
	command := d.command(ctx, name, arguments...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// runAndShow runs a program and shows its command line and its output.
func (d *demo) runAndShow(ctx context.Context, name string, arguments ...string) error {
	d.screen.command(name + " " + strings.Join(arguments, " "))
	out, err := d.command(ctx, name, arguments...).CombinedOutput()
	if len(out) > 0 {
		d.screen.printf("%s", out)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// command is a command of one of the demo's programs, with the demo's cluster and
// without the user's files. When ctx ends, it is interrupted before it is killed.
func (d *demo) command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, d.path("bin", name), arguments...)
	command.Dir = d.root
	command.Env = append(os.Environ(), "KUBECONFIG="+d.kubeconfig(), "KUBECACHEDIR="+d.path("kube"),
		"HELM_CACHE_HOME="+d.path("helm"), "HELM_CONFIG_HOME="+d.path("helm"), "HELM_DATA_HOME="+d.path("helm"))
	interruptOnCancel(command)
	return command
}

// interruptOnCancel makes a command end by SIGINT when its context ends, and kills it
// after 30 seconds.
func interruptOnCancel(command *exec.Cmd) {
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGINT) }
	command.WaitDelay = 30 * time.Second
}

// errExited means that a process has ended, so waiting for it is useless.
var errExited = errors.New("ended")

// waitFor calls check until it returns nil. It returns the last error after timeout, and
// errExited immediately.
func waitFor(ctx context.Context, timeout time.Duration, check func() error) error {
	deadline := time.Now().Add(timeout)
	for {
		err := check()
		if err == nil || errors.Is(err, errExited) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
