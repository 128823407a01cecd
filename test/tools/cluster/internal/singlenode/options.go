package singlenode

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// Options describe the cluster to start.
type Options struct {
	// Folder holds everything that the cluster writes.
	Folder string `json:"folder"`
	// Programs are the paths of the cluster's programs, by name.
	Programs map[string]string `json:"programs"`
	// Packages is a folder with unpacked Debian packages: runc, nft, the CNI plugins
	// and their dependencies. Empty if the machine has them installed.
	Packages string `json:"packages"`
	// Images are the tarballs of the images that the node has from the start.
	Images []string `json:"images"`
	// Port is the API server's port, inside and outside of the namespaces.
	Port int `json:"port"`
	// MaxPods is the maximum number of pods on the node.
	MaxPods int `json:"maxPods"`
	// CGroup is the name of the control group of all pods, below the root of each
	// hierarchy.
	CGroup string `json:"cgroup"`
	// Timeout limits the whole start.
	Timeout time.Duration `json:"patience"`
}

// File names in the data folder.
const (
	controlPlaneFolder = "plane"
	optionsFile        = "node.json"
	apiSocket          = "api.sock"
	controlSocket      = "control.sock"
)

// Names and addresses in the node's network namespace.
const (
	nodeName    = "isthmus-node"
	nodeAddress = "10.244.0.1"
	// podRange is large enough to replace hundreds of pods without reusing an address.
	podRange      = "10.244.0.0/16"
	dnsAddress    = "10.96.0.10"
	clusterDomain = "cluster.local"
)

func (o Options) path(elements ...string) string {
	return filepath.Join(append([]string{o.Folder}, elements...)...)
}

// write stores the options for Inside, which runs in another process.
func (o Options) write() error {
	content, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return os.WriteFile(o.path(optionsFile), content, 0o600)
}

// readOptions reads the options that write stored in a data folder.
func readOptions(folder string) (Options, error) {
	content, err := os.ReadFile(filepath.Join(folder, optionsFile))
	if err != nil {
		return Options{}, err
	}
	var o Options
	err = json.Unmarshal(content, &o)
	return o, err
}
