package apiserver

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// ReapCommand is the subcommand of this very program that runs Reap; its only
// argument is the data folder.
const ReapCommand = "reap"

// reaper is a second process of this program. It waits for the end of the
// harness and cleans up when the harness no longer can, having been killed.
type reaper struct {
	command     *exec.Cmd
	harnessPipe io.Closer // the harness's end of a pipe; the kernel closes it too
}

func startReaper(folder string) (*reaper, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(program, ReapCommand, folder)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no signal meant for the harness reaches it
	harnessPipe, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the reaper: %w", err)
	}
	return &reaper{command: command, harnessPipe: harnessPipe}, nil
}

// release lets the reaper end; it finds nothing left to do.
func (r *reaper) release() error {
	if err := r.harnessPipe.Close(); err != nil {
		return err
	}
	return r.command.Wait()
}

// Reap waits until harness, the other end of a pipe, is gone, and then ends
// and removes what it left in its data folder.
func Reap(folder string, harness io.Reader) error {
	if _, err := io.Copy(io.Discard, harness); err != nil {
		return err
	}
	state, err := ReadState(folder)
	if os.IsNotExist(err) {
		return nil // the harness has done it
	}
	if err != nil {
		return err
	}
	return state.cleanUp(folder)
}
