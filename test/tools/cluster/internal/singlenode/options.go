package singlenode

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// Options say what to start.
type Options struct {
	// Folder holds everything the cluster writes.
	Folder string `json:"folder"`
	// Programs are the paths of the cluster's programs, by name.
	Programs map[string]string `json:"programs"`
	// Packages is a folder in which Debian's packages are unpacked: runc, nft, the
	// CNI plugins and what they need.
	Packages string `json:"packages"`
	// Images are archives of images that the node has from the start.
	Images []string `json:"images"`
	// Port is the API server's, inside and outside.
	Port int `json:"port"`
	// MaxPods is how many pods the node takes.
	MaxPods int `json:"maxPods"`
	// CGroup names the control group of all pods, below each hierarchy's root.
	CGroup string `json:"cgroup"`
	// Timeout is how long the whole start may take.
	Timeout time.Duration `json:"patience"`
}

// Names inside the data folder.
const (
	controlPlaneFolder = "plane"
	optionsFile        = "node.json"
	apiSocket          = "api.sock"
	controlSocket      = "control.sock"
)

// Addresses inside the node's network namespace.
const (
	// nodeName is the node's.
	nodeName    = "isthmus-node"
	nodeAddress = "10.244.0.1"
	// podRange is big enough for rolling hundreds of pods without reusing an address.
	podRange      = "10.244.0.0/16"
	dnsAddress    = "10.96.0.10"
	clusterDomain = "cluster.local"
)

func (o Options) path(elements ...string) string {
	return filepath.Join(append([]string{o.Folder}, elements...)...)
}

// write leaves the options for the process that is going to be inside.
func (o Options) write() error {
	content, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return os.WriteFile(o.path(optionsFile), content, 0o600)
}

// readOptions returns the options of a data folder.
func readOptions(folder string) (Options, error) {
	content, err := os.ReadFile(filepath.Join(folder, optionsFile))
	if err != nil {
		return Options{}, err
	}
	var o Options
	err = json.Unmarshal(content, &o)
	return o, err
}
