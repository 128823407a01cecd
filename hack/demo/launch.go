package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// daemon is a process that keeps running after this program exits, as recorded in a
// file for make demo-down.
type daemon struct {
	processID
	// Port serves the webhook's reviews, Health /readyz, Metrics /metrics; all on
	// 127.0.0.1. istiod chooses its own.
	Port, Health, Metrics int
}

// daemonNames are the names of all daemons, in the order in which they are stopped.
func daemonNames() []string { return []string{webhookName, controllerName, istiodName} }

// readDaemon reads the record of a daemon; the zero value when there is none.
func (d *demo) readDaemon(name string) daemon {
	var r daemon
	if content, err := os.ReadFile(d.path(name + ".json")); err == nil {
		_ = json.Unmarshal(content, &r) // an unreadable record names no process
	}
	return r
}

// isUp reports whether every process that up starts is running.
func (d *demo) isUp(ctx context.Context) bool {
	for _, name := range daemonNames() {
		if !d.readDaemon(name).isRunning() {
			return false
		}
	}
	_, err := d.run(ctx, "kubectl", "get", "--raw=/readyz")
	return err == nil
}

// launchDaemon starts a command as a daemon, records its process, and waits until ready
// returns nil. The caller sets the command's environment and folder; its output goes to
// the log.
func (d *demo) launchDaemon(ctx context.Context, name string, r *daemon, command *exec.Cmd, ready func() error) error {
	log, err := os.Create(d.path(name + ".log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		err := command.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		ended <- err
	}()
	r.processID = identifyProcess(command.Process.Pid)
	content, err := json.Marshal(r)
	if err != nil {
		return errors.Join(err, r.terminate(time.Second))
	}
	if err := os.WriteFile(d.path(name+".json"), content, 0o600); err != nil {
		return errors.Join(err, r.terminate(time.Second))
	}
	return waitFor(ctx, time.Minute, func() error {
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("%s %w: %w; its log ends with\n%s", name, errExited, err, d.logTail(name))
		default:
			return ready()
		}
	})
}

// logTail returns the last lines of a daemon's log.
func (d *demo) logTail(name string) string {
	content, err := os.ReadFile(d.path(name + ".log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
