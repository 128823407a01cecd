package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
)

// announcement is a line that the background process prints: progress, and finally
// an endpoint or an error.
type announcement struct {
	apiserver.Endpoint
	Progress string `json:"progress,omitempty"`
	Error    string `json:"error,omitempty"`
}

// progressWriter sends progress as announcements. The background process has no
// standard error of its own.
type progressWriter struct{ out io.Writer }

// Write sends text as an announcement.
func (w progressWriter) Write(text []byte) (int, error) {
	return len(text), json.NewEncoder(w.out).Encode(announcement{Progress: string(text)})
}

// detach starts a second process of this program in the background, waits until it
// announces its endpoint, and prints the endpoint.
func detach(ctx context.Context, f upFlags, std streams) error {
	if f.data == "" {
		return errors.New("--detach needs --data, the folder that down will be told")
	}
	running, err := runningEndpoint(ctx, f)
	if err != nil {
		return err
	}
	if running != nil {
		_, _ = fmt.Fprintf(std.err, "a control plane already runs in %s\n", running.DataDir)
		return json.NewEncoder(std.out).Encode(running)
	}
	if _, err := f.build(ctx, std); err != nil { // build here: progress goes to this process's standard error
		return err
	}
	endpoint, err := f.startInBackground(ctx, std.err)
	if err != nil {
		return err
	}
	return json.NewEncoder(std.out).Encode(endpoint)
}

// runningEndpoint returns the endpoint of the control plane that runs in the data
// folder, or nil if there is none. It waits for a control plane that is starting.
func runningEndpoint(ctx context.Context, f upFlags) (*apiserver.Endpoint, error) {
	deadline := time.After(f.timeout)
	for {
		state, err := apiserver.ReadState(f.data)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && !state.Harness.Alive()) {
			return nil, nil
		}
		if err != nil || state.Endpoint != nil {
			return state.Endpoint, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-deadline:
			return nil, fmt.Errorf("the control plane in %s is still starting after %s", f.data, f.timeout)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// startInBackground starts the background process, copies its progress, and returns
// the endpoint that it announces.
func (f upFlags) startInBackground(ctx context.Context, progress io.Writer) (*apiserver.Endpoint, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	arguments := []string{"up", "--background", "--data=" + f.data, "--kubeconfig=" + f.kubeconfig, "--timeout=" + f.timeout.String()}
	if f.controllerManager {
		arguments = append(arguments, "--controller-manager")
	}
	if f.node {
		arguments = append(arguments, "--node", "--max-pods="+strconv.Itoa(f.maxPods))
	}
	command := exec.Command(program, arguments...)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	announced := make(chan announcement, 1)
	go func() {
		for decoder := json.NewDecoder(stdout); ; {
			var line announcement
			if err := decoder.Decode(&line); err != nil {
				line.Error = "the background process ended without an announcement"
			}
			if line.Progress == "" {
				announced <- line
				return
			}
			_, _ = io.WriteString(progress, line.Progress)
		}
	}()
	select {
	case line := <-announced:
		if line.Error != "" {
			return nil, errors.Join(errors.New(line.Error), command.Wait())
		}
		return &line.Endpoint, command.Process.Release()
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), command.Process.Signal(syscall.SIGTERM), command.Wait())
	}
}
