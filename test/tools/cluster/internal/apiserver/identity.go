package apiserver

import (
	"errors"
	"syscall"
)

// Identity identifies a process. A process ID alone does not, because the kernel
// reuses it.
type Identity struct {
	PID int `json:"pid"`
	// Started is the start time of the process, in a format that depends on the
	// operating system.
	Started string `json:"started"`
}

// identify returns the identity of a running process.
func identify(pid int) (Identity, error) {
	started, err := startTime(pid)
	return Identity{PID: pid, Started: started}, err
}

// Alive reports whether this process still runs. A zombie does not.
func (i Identity) Alive() bool {
	if i.PID <= 0 || i.Started == "" {
		return false
	}
	started, err := startTime(i.PID)
	return err == nil && started == i.Started
}

// signal sends a signal to the process if it still runs.
func (i Identity) signal(signal syscall.Signal) error {
	if !i.Alive() {
		return nil
	}
	if err := syscall.Kill(i.PID, signal); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// NewChild returns the child with its identity. It must be called before the process
// is waited for.
func NewChild(name string, pid int) Child {
	identity, err := identify(pid)
	if err != nil {
		identity = Identity{PID: pid} // it has ended already
	}
	return Child{Name: name, Identity: identity}
}
