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

// identity names one process for good: a process id alone is reused.
type identity struct {
	PID     int    `json:"pid"`
	Started string `json:"started"`
}

func identify(pid int) identity { return identity{PID: pid, Started: startTime(pid)} }

// alive reports whether this very process still runs; a zombie does not.
func (i identity) alive() bool {
	return i.PID > 0 && i.Started != "" && startTime(i.PID) == i.Started
}

// end asks the process to end, and kills it when it takes longer than patience.
func (i identity) end(patience time.Duration) error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if !i.alive() {
			return nil
		}
		if err := syscall.Kill(i.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d: %w", i.PID, err)
		}
		for deadline := time.Now().Add(patience); i.alive() && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if i.alive() {
		return fmt.Errorf("process %d does not end", i.PID)
	}
	return nil
}

// startTime is when a process began, in whatever form the system tells it, and
// empty when it has ended.
func startTime(pid int) string {
	if content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		// The second field is the program's name in parentheses, blanks and all.
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

// output runs a program and returns what it printed; its error holds what it
// said on standard error.
func (d *demo) output(ctx context.Context, name string, arguments ...string) ([]byte, error) {
	command := d.program(ctx, name, arguments...)
	var complaints bytes.Buffer
	command.Stderr = &complaints
	out, err := command.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, bytes.TrimSpace(complaints.Bytes()))
	}
	return out, nil
}

// show runs a program in the sight of the user, as they would type it.
func (d *demo) show(ctx context.Context, name string, arguments ...string) error {
	d.screen.command(name + " " + strings.Join(arguments, " "))
	out, err := d.program(ctx, name, arguments...).CombinedOutput()
	if len(out) > 0 {
		d.screen.say("%s", out)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// program is one of the demo's own tools, pointed at the demo's cluster and
// kept away from the user's files. It is asked to end before it is killed.
func (d *demo) program(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, d.path("bin", name), arguments...)
	command.Dir = d.root
	command.Env = append(os.Environ(), "KUBECONFIG="+d.kubeconfig(), "KUBECACHEDIR="+d.path("kube"),
		"HELM_CACHE_HOME="+d.path("helm"), "HELM_CONFIG_HOME="+d.path("helm"), "HELM_DATA_HOME="+d.path("helm"))
	gently(command)
	return command
}

func gently(command *exec.Cmd) {
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGINT) }
	command.WaitDelay = 30 * time.Second
}

// errEnded says that a process is no more: there is nothing to wait for.
var errEnded = errors.New("ended")

// await asks until there is no error, and returns the last one after patience,
// at once when it is errEnded.
func await(ctx context.Context, patience time.Duration, ask func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil || errors.Is(err, errEnded) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
