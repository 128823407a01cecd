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

// Names inside a data folder.
const (
	lockFile            = "isthmus.lock" // also the mark that says the folder is ours
	stateFile           = "state.json"
	pkiFolder           = "pki"
	logsFolder          = "logs"
	adminKubeconfigFile = "kubeconfig"
)

// State is what a data folder tells about the control plane that lives in it.
type State struct {
	// Harness is the process that holds the control plane up.
	Harness Identity `json:"harness"`
	// Children are etcd, the API server and so on, in the order of their start.
	Children []Child `json:"children"`
	// Endpoint is set once the control plane is ready.
	Endpoint *Endpoint `json:"endpoint,omitempty"`
	// Kubeconfig is the additional kubeconfig that the user asked for.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// CGroup names the control group of a node's pods, below each hierarchy's root.
	CGroup string `json:"cgroup,omitempty"`
}

// Child is one process of a control plane.
type Child struct {
	Name string `json:"name"`
	Identity
}

// Endpoint is how a ready control plane is reached.
type Endpoint struct {
	Kubeconfig string `json:"kubeconfig"`
	Server     string `json:"server"`
	Kubectl    string `json:"kubectl"`
	DataDir    string `json:"dataDir"`
	Logs       string `json:"logs"`
}

// errInUse says that a living process owns the data folder.
var errInUse = errors.New("a control plane already runs there")

// lockFolder makes the data folder ours for as long as the lock is open; without a
// name, a new temporary folder. What a killed predecessor left is cleared away.
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

// checkIsDataFolder refuses a folder that holds something else than a control plane:
// the folder is going to be removed.
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

// clearFolder ends the children that a killed predecessor left, and empties the
// folder but for its lock.
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

// ReadState reads what runs in a data folder; the error is fs.ErrNotExist when
// nothing ever did.
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

// removeCGroup removes the control group of children that have ended.
func (s State) removeCGroup() error {
	if s.CGroup == "" {
		return nil
	}
	return cgroup.Remove(s.CGroup)
}

// write replaces the folder's state in one step.
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

// removeFolder removes a data folder with all it holds, if it is ours.
func removeFolder(folder string) error {
	if err := checkIsDataFolder(folder); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(folder)
}
