//go:build linux

package singlenode

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
)

const runtimeSocket = "/run/containerd/containerd.sock"

// runtimeConfig is containerd's configuration. restrict_oom_score_adj is set because
// lowering an OOM score needs CAP_SYS_RESOURCE, which a sandbox may lack.
const runtimeConfig = `version = 3
root = %q
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "registry.k8s.io/pause:3.10"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = %q
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "/usr/sbin/runc"
      SystemdCgroup = false
`

// podNetwork is the CNI configuration. No traffic leaves the machine, so nothing is
// masqueraded.
const podNetwork = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": %q, "isGateway": true, "hairpinMode": true,
    "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}
`

// startRuntime starts containerd and imports the images.
func (n *node) startRuntime(ctx context.Context) error {
	files := map[string]string{
		n.path("containerd.toml"):         fmt.Sprintf(runtimeConfig, n.path("containerd"), runtimeSocket, n.path("cni")),
		n.path("cni", "10-pods.conflist"): fmt.Sprintf(podNetwork, bridge, podRange),
	}
	for path, content := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	err := n.controlPlane.Run(ctx, apiserver.Component{
		Name:      "containerd",
		Program:   n.Programs["containerd"],
		Arguments: []string{"--config", n.path("containerd.toml")},
		// containerd looks for its shim on the PATH.
		Environment: []string{"PATH=" + filepath.Dir(n.Programs["containerd-shim-runc-v2"]) + ":" + os.Getenv("PATH")},
		Ready:       func(ctx context.Context) error { return n.ctr(ctx, "version") },
	})
	if err != nil {
		return err
	}
	for _, image := range n.Images {
		if err := n.importImage(ctx, image); err != nil {
			return err
		}
	}
	return nil
}

// importImage imports the image in a tarball into containerd.
func (n *node) importImage(ctx context.Context, tarball string) error {
	if err := n.ctr(ctx, "--namespace", "k8s.io", "images", "import", "--local", tarball); err != nil {
		return fmt.Errorf("import %s: %w", tarball, err)
	}
	return nil
}

// ctr runs containerd's command line client.
func (n *node) ctr(ctx context.Context, arguments ...string) error {
	_, err := n.ctrOutput(ctx, arguments...)
	return err
}

// ctrOutput runs containerd's command line client and returns its output.
func (n *node) ctrOutput(ctx context.Context, arguments ...string) (string, error) {
	out, err := exec.CommandContext(ctx, n.Programs["ctr"], append([]string{"--address", runtimeSocket}, arguments...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", arguments[0], err, out)
	}
	return string(out), nil
}
