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

// running is a process that outlives this program, as it is written down for
// demo-down.
type running struct {
	identity
	// Port serves the webhook's reviews, Health /readyz, Metrics /metrics; all on
	// 127.0.0.1. istiod chooses its own.
	Port, Health, Metrics int
}

// servers are the names of all such processes, in the order in which they end.
func servers() []string { return []string{webhookName, controllerName, istiodName} }

// process reads what runs under a name; the zero value when nothing does.
func (d *demo) process(name string) running {
	var r running
	if content, err := os.ReadFile(d.path(name + ".json")); err == nil {
		_ = json.Unmarshal(content, &r) // what cannot be read names no process
	}
	return r
}

// alive reports whether everything that up starts still runs.
func (d *demo) alive(ctx context.Context) bool {
	for _, name := range servers() {
		if !d.process(name).alive() {
			return false
		}
	}
	_, err := d.output(ctx, "kubectl", "get", "--raw=/readyz")
	return err == nil
}

// launch starts a program that outlives this one, writes down which process it
// is, and waits until ready returns nil. The command has its environment and
// folder; its output becomes the log.
func (d *demo) launch(ctx context.Context, name string, r *running, command *exec.Cmd, ready func() error) error {
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
	r.identity = identify(command.Process.Pid)
	content, err := json.Marshal(r)
	if err != nil {
		return errors.Join(err, r.end(time.Second))
	}
	if err := os.WriteFile(d.path(name+".json"), content, 0o600); err != nil {
		return errors.Join(err, r.end(time.Second))
	}
	return await(ctx, time.Minute, func() error {
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("%s %w: %w; its log ends with\n%s", name, errEnded, err, d.lastLog(name))
		default:
			return ready()
		}
	})
}

// lastLog is the end of a process's log.
func (d *demo) lastLog(name string) string {
	content, err := os.ReadFile(d.path(name + ".log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
