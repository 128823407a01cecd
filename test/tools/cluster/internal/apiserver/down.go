package apiserver

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// terminationTimeout is how long Down waits for the harness to clean up after itself.
const terminationTimeout = 20 * time.Second

// Down ends the control plane that runs in a data folder and removes the folder. It
// reports whether there was a control plane.
func Down(folder string) (bool, error) {
	if _, err := os.Stat(folder); os.IsNotExist(err) {
		return false, nil
	}
	if err := checkIsDataFolder(folder); err != nil {
		return false, err
	}
	state, err := ReadState(folder)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := state.Harness.terminate(terminationTimeout); err != nil {
		return true, err
	}
	return true, state.cleanUp(folder)
}

// cleanUp ends the processes and removes the files that a harness, which has ended,
// left behind.
func (s State) cleanUp(folder string) error {
	killAll(s.Children)
	if err := s.removeCGroup(); err != nil {
		return err
	}
	if s.Kubeconfig != "" {
		admin, err := os.ReadFile(filepath.Join(folder, adminKubeconfigFile))
		if err == nil {
			err = removeKubeconfig(s.Kubeconfig, admin)
		}
		if err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return removeFolder(folder)
}

// terminate sends SIGTERM to a process, and SIGKILL if it still runs after grace.
func (i Identity) terminate(grace time.Duration) error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := i.signal(signal); err != nil {
			return fmt.Errorf("end process %d: %w", i.PID, err)
		}
		for deadline := time.Now().Add(grace); i.Alive() && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if i.Alive() {
		return fmt.Errorf("process %d does not end", i.PID)
	}
	return nil
}
