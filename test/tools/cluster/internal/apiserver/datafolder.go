package apiserver

import (
	"errors"
	"os"
	"sync"
)

// DataFolder is a data folder that this process has locked. Its state file names the
// processes of the control plane, so that other processes can end them if this one is
// killed.
type DataFolder struct {
	folder string
	lock   *os.File
	reaper *reaper

	mu              sync.Mutex // guards state
	state           State
	adminKubeconfig []byte // content of the admin's kubeconfig
}

// LockDataFolder locks a data folder until Release. An empty name means a new temporary
// folder. kubeconfig is an additional file for the admin's kubeconfig; empty means
// none. withReaper starts a second process that cleans up if this one is killed.
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

// Folder returns the absolute path of the data folder.
func (d *DataFolder) Folder() string { return d.folder }

// RecordChild adds a child to the state, so that the reaper and Down end it.
func (d *DataFolder) RecordChild(child Child) error {
	return d.updateState(func(s *State) { s.Children = append(s.Children, child) })
}

// RecordCGroup adds the children's control group to the state, so that the reaper and
// Down remove it.
func (d *DataFolder) RecordCGroup(name string) error {
	return d.updateState(func(s *State) { s.CGroup = name })
}

// SetEndpoint adds the endpoint to the state and writes the additional kubeconfig.
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

// Endpoint returns the endpoint of the control plane. SetEndpoint must have been
// called.
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

// Release removes the data folder, the control group and the additional kubeconfig,
// and ends the reaper. The control plane's processes must have ended.
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
