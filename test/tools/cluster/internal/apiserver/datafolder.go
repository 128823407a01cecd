package apiserver

import (
	"errors"
	"os"
	"sync"
)

// Hold is a data folder that is ours, and what it tells others about the processes
// that live in it, so that they can be ended when this one no longer can.
type Hold struct {
	folder string
	lock   *os.File
	reaper *reaper

	mu    sync.Mutex // guards state
	state State
	admin []byte // the admin's kubeconfig
}

// Claim makes a data folder ours until Release; without a name, a new temporary
// folder. Kubeconfig is a further place for the admin's kubeconfig, none when
// empty. Where reaped, a second process cleans up should this one be killed.
func Claim(folder, kubeconfig string, reaped bool) (*Hold, error) {
	if kubeconfig != "" {
		if err := checkOverwrite(kubeconfig); err != nil {
			return nil, err
		}
	}
	folder, lock, err := claim(folder)
	if err != nil {
		return nil, err
	}
	h := &Hold{folder: folder, lock: lock}
	if err := h.begin(kubeconfig, reaped); err != nil {
		return nil, errors.Join(err, h.Release())
	}
	return h, nil
}

func (h *Hold) begin(kubeconfig string, reaped bool) (err error) {
	harness, err := identify(os.Getpid())
	if err != nil {
		return err
	}
	h.state = State{Harness: harness, Kubeconfig: kubeconfig}
	if err := h.state.write(h.folder); err != nil {
		return err
	}
	if reaped {
		h.reaper, err = startReaper(h.folder)
	}
	return err
}

// Folder is the data folder, absolute.
func (h *Hold) Folder() string { return h.folder }

// Record has a child be known to those who clean up.
func (h *Hold) Record(child Child) error {
	return h.change(func(s *State) { s.Children = append(s.Children, child) })
}

// Group has the control group of the children be known to those who clean up.
func (h *Hold) Group(name string) error {
	return h.change(func(s *State) { s.CGroup = name })
}

// Announce tells how the control plane is reached, and writes the further
// kubeconfig.
func (h *Hold) Announce(endpoint Endpoint) error {
	admin, err := os.ReadFile(endpoint.Kubeconfig)
	if err != nil {
		return err
	}
	h.admin = admin
	if h.state.Kubeconfig != "" {
		if err := writeKubeconfig(h.state.Kubeconfig, admin); err != nil {
			return err
		}
	}
	return h.change(func(s *State) { s.Endpoint = &endpoint })
}

// Endpoint returns how the control plane is reached.
func (h *Hold) Endpoint() Endpoint {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *h.state.Endpoint
}

func (h *Hold) change(edit func(*State)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	edit(&h.state)
	return h.state.write(h.folder)
}

// Release removes the data folder and the kubeconfigs. The processes have ended.
func (h *Hold) Release() error {
	var problems []error
	if h.admin != nil && h.state.Kubeconfig != "" {
		problems = append(problems, removeKubeconfig(h.state.Kubeconfig, h.admin))
	}
	problems = append(problems, h.state.removeGroup(), remove(h.folder), h.lock.Close())
	if h.reaper != nil {
		problems = append(problems, h.reaper.release())
	}
	return errors.Join(problems...)
}
