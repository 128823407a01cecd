package node

import (
	"context"
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// ImportImage imports an image of test/tools/cluster that the node does not have from the
// start. A cluster that is not Ephemeral must have it already.
func (c *Cluster) ImportImage(ctx context.Context, name string) error {
	if !c.Ephemeral {
		return nil
	}
	tarball, err := controlplane.Image(ctx, name)
	if err != nil {
		return err
	}
	return controlplane.ControlComponent(ctx, c.DataDir, "import", tarball)
}

// KillContainer kills the process of a container from outside of the pod. id is the ID in
// the pod's status: containerd://<id>.
func (c *Cluster) KillContainer(ctx context.Context, id string) error {
	return c.controlContainer(ctx, "kill", id)
}

// KillContainers kills all containers of the node at once, including the pods' sandboxes,
// as a power failure would.
func (c *Cluster) KillContainers(ctx context.Context) error {
	return c.controlContainer(ctx, "kill", "containerd://all")
}

// PauseContainer stops the first process of a container until ResumeContainer. id is the
// same as for KillContainer.
func (c *Cluster) PauseContainer(ctx context.Context, id string) error {
	return c.controlContainer(ctx, "pause", id)
}

// ResumeContainer continues a container that PauseContainer stopped.
func (c *Cluster) ResumeContainer(ctx context.Context, id string) error {
	return c.controlContainer(ctx, "resume", id)
}

func (c *Cluster) controlContainer(ctx context.Context, action, id string) error {
	if !c.Ephemeral {
		return fmt.Errorf("%s container %s: the cluster of KUBECONFIG is not this test's", action, id)
	}
	_, id, found := strings.Cut(id, "://")
	if !found {
		return fmt.Errorf("container id %q: want containerd://<id>", id)
	}
	return controlplane.ControlComponent(ctx, c.DataDir, action+"-container", id)
}
