package apiserver

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// ReapCommand is the subcommand of this program that runs Reap. Its only argument is
// the data folder.
const ReapCommand = "reap"

// reaper is a second process of this program. It waits for the end of the harness and
// cleans up if the harness was killed.
type reaper struct {
	command     *exec.Cmd
	harnessPipe io.Closer // the harness's end of a pipe; the kernel closes it if the harness is killed
}

func startReaper(folder string) (*reaper, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(program, ReapCommand, folder)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals for the harness's process group do not reach it
	harnessPipe, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the reaper: %w", err)
	}
	return &reaper{command: command, harnessPipe: harnessPipe}, nil
}

// release ends the reaper, which finds nothing to clean up.
func (r *reaper) release() error {
	if err := r.harnessPipe.Close(); err != nil {
		return err
	}
	return r.command.Wait()
}

// Reap waits until harness, the read end of a pipe, is closed. Then it ends the
// processes and removes the files that the harness left behind.
func Reap(folder string, harness io.Reader) error {
	if _, err := io.Copy(io.Discard, harness); err != nil {
		return err
	}
	state, err := ReadState(folder)
	if os.IsNotExist(err) {
		return nil // the harness has cleaned up
	}
	if err != nil {
		return err
	}
	return state.cleanUp(folder)
}
