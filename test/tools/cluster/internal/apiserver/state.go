package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/cgroup"
)

// File names in a data folder.
const (
	lockFile            = "isthmus.lock" // also marks the folder as a data folder
	stateFile           = "state.json"
	pkiFolder           = "pki"
	logsFolder          = "logs"
	adminKubeconfigFile = "kubeconfig"
)

// State is the content of a data folder's state file. It describes the control plane
// that runs in the folder.
type State struct {
	// Harness is the process that started the control plane and waits for its end.
	Harness Identity `json:"harness"`
	// Children are etcd, the API server and the other components, in the order of
	// their start.
	Children []Child `json:"children"`
	// Endpoint is set when the control plane is ready.
	Endpoint *Endpoint `json:"endpoint,omitempty"`
	// Kubeconfig is the path of the additional kubeconfig, if there is one.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// CGroup is the name of the control group of a node's pods, below the root of each
	// hierarchy.
	CGroup string `json:"cgroup,omitempty"`
}

// Child is a process of a control plane.
type Child struct {
	Name string `json:"name"`
	Identity
}

// Endpoint says how to reach a ready control plane.
type Endpoint struct {
	Kubeconfig string `json:"kubeconfig"`
	Server     string `json:"server"`
	Kubectl    string `json:"kubectl"`
	DataDir    string `json:"dataDir"`
	Logs       string `json:"logs"`
}

// errInUse says that a running process has locked the data folder.
var errInUse = errors.New("a control plane already runs there")

// lockFolder locks a data folder until the returned file is closed. An empty name
// means a new temporary folder. It cleans up after a predecessor that was killed.
func lockFolder(folder string) (string, *os.File, error) {
	if folder == "" {
		temporary, err := os.MkdirTemp("", "isthmus-cluster-")
		if err != nil {
			return "", nil, err
		}
		folder = temporary
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", nil, err
	}
	if err := checkIsDataFolder(folder); err != nil {
		return "", nil, err
	}
	lock, err := os.OpenFile(filepath.Join(folder, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return "", nil, fmt.Errorf("%s: %w", folder, errInUse)
		}
		return "", nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if err := clearFolder(folder); err != nil {
		_ = lock.Close()
		return "", nil, err
	}
	return folder, lock, nil
}

// checkIsDataFolder returns an error if the folder has content and no lock file: the
// folder will be removed, so it must not hold anything else.
func checkIsDataFolder(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(folder, lockFile)); err != nil {
		return fmt.Errorf("%s is not empty and holds no control plane: name another folder for --data", folder)
	}
	return nil
}

// clearFolder ends the children that a killed predecessor left behind, and removes
// everything in the folder except the lock file.
func clearFolder(folder string) error {
	if state, err := ReadState(folder); err == nil {
		killAll(state.Children)
		if err := state.removeCGroup(); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == lockFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(folder, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// ReadState reads the state of a data folder. The error is fs.ErrNotExist if the folder
// has no state.
func ReadState(folder string) (State, error) {
	content, err := os.ReadFile(filepath.Join(folder, stateFile))
	if err != nil {
		return State{}, err
	}
	var state State
	if err := json.Unmarshal(content, &state); err != nil {
		return State{}, fmt.Errorf("%s: %w", filepath.Join(folder, stateFile), err)
	}
	return state, nil
}

// removeCGroup removes the control group of the children, which must have ended.
func (s State) removeCGroup() error {
	if s.CGroup == "" {
		return nil
	}
	return cgroup.Remove(s.CGroup)
}

// write replaces the folder's state file atomically.
func (s State) write(folder string) error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(folder, stateFile)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// removeFolder removes a data folder with its content.
func removeFolder(folder string) error {
	if err := checkIsDataFolder(folder); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(folder)
}
