package apiserver

import (
	"errors"
	"os"
	"sync"
)

// DataFolder is a data folder that is ours, and what it tells others about the processes
// that live in it, so that they can be ended when this one no longer can.
type DataFolder struct {
	folder string
	lock   *os.File
	reaper *reaper

	mu              sync.Mutex // guards state
	state           State
	adminKubeconfig []byte // the admin's kubeconfig
}

// LockDataFolder makes a data folder ours until Release; without a name, a new temporary
// folder. Kubeconfig is a further place for the admin's kubeconfig, none when
// empty. Where reaped, a second process cleans up should this one be killed.
func LockDataFolder(folder, kubeconfig string, withReaper bool) (*DataFolder, error) {
	if kubeconfig != "" {
		if err := checkOverwrite(kubeconfig); err != nil {
			return nil, err
		}
	}
	folder, lock, err := lockFolder(folder)
	if err != nil {
		return nil, err
	}
	d := &DataFolder{folder: folder, lock: lock}
	if err := d.initialize(kubeconfig, withReaper); err != nil {
		return nil, errors.Join(err, d.Release())
	}
	return d, nil
}

func (d *DataFolder) initialize(kubeconfig string, withReaper bool) (err error) {
	harness, err := identify(os.Getpid())
	if err != nil {
		return err
	}
	d.state = State{Harness: harness, Kubeconfig: kubeconfig}
	if err := d.state.write(d.folder); err != nil {
		return err
	}
	if withReaper {
		d.reaper, err = startReaper(d.folder)
	}
	return err
}

// Folder is the data folder, absolute.
func (d *DataFolder) Folder() string { return d.folder }

// RecordChild has a child be known to those who clean up.
func (d *DataFolder) RecordChild(child Child) error {
	return d.updateState(func(s *State) { s.Children = append(s.Children, child) })
}

// RecordCGroup has the control group of the children be known to those who clean up.
func (d *DataFolder) RecordCGroup(name string) error {
	return d.updateState(func(s *State) { s.CGroup = name })
}

// SetEndpoint tells how the control plane is reached, and writes the further
// kubeconfig.
func (d *DataFolder) SetEndpoint(endpoint Endpoint) error {
	admin, err := os.ReadFile(endpoint.Kubeconfig)
	if err != nil {
		return err
	}
	d.adminKubeconfig = admin
	if d.state.Kubeconfig != "" {
		if err := writeKubeconfig(d.state.Kubeconfig, admin); err != nil {
			return err
		}
	}
	return d.updateState(func(s *State) { s.Endpoint = &endpoint })
}

// Endpoint returns how the control plane is reached.
func (d *DataFolder) Endpoint() Endpoint {
	d.mu.Lock()
	defer d.mu.Unlock()
	return *d.state.Endpoint
}

func (d *DataFolder) updateState(edit func(*State)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	edit(&d.state)
	return d.state.write(d.folder)
}

// Release removes the data folder and the kubeconfigs. The processes have ended.
func (d *DataFolder) Release() error {
	var problems []error
	if d.adminKubeconfig != nil && d.state.Kubeconfig != "" {
		problems = append(problems, removeKubeconfig(d.state.Kubeconfig, d.adminKubeconfig))
	}
	problems = append(problems, d.state.removeCGroup(), removeFolder(d.folder), d.lock.Close())
	if d.reaper != nil {
		problems = append(problems, d.reaper.release())
	}
	return errors.Join(problems...)
}
