package apiserver

import (
	"errors"
	"syscall"
)

// Identity names one process for good: a process id alone is reused.
type Identity struct {
	PID int `json:"pid"`
	// Started is when the process began, in whatever form the system tells it.
	Started string `json:"started"`
}

// identify returns the identity of a process that runs now.
func identify(pid int) (Identity, error) {
	started, err := startTime(pid)
	return Identity{PID: pid, Started: started}, err
}

// Alive reports whether this very process still runs; a zombie does not.
func (i Identity) Alive() bool {
	if i.PID <= 0 || i.Started == "" {
		return false
	}
	started, err := startTime(i.PID)
	return err == nil && started == i.Started
}

// signal sends a signal to the process, if it is still the one that was meant.
func (i Identity) signal(signal syscall.Signal) error {
	if !i.Alive() {
		return nil
	}
	if err := syscall.Kill(i.PID, signal); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// NewChild identifies a child that was just started.
func NewChild(name string, pid int) Child {
	identity, err := identify(pid)
	if err != nil {
		identity = Identity{PID: pid} // it has ended already
	}
	return Child{Name: name, Identity: identity}
}
