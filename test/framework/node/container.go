package node

import (
	"context"
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// Import gives the node an image of test/tools/cluster that it does not have from the
// start. Of a cluster that is not Owned it is expected to be there.
func (c *Cluster) Import(ctx context.Context, name string) error {
	if !c.Owned {
		return nil
	}
	tarball, err := controlplane.Image(ctx, name)
	if err != nil {
		return err
	}
	return controlplane.Component(ctx, c.DataDir, "import", tarball)
}

// KillContainer kills the process of a container, whose id is that of a pod's
// status: containerd://<id>. Nothing in a pod can, and nothing may.
func (c *Cluster) KillContainer(ctx context.Context, id string) error {
	return c.orderContainer(ctx, "kill", id)
}

// KillContainers kills every container of the node at once, pods' sandboxes too, as
// when it loses its power.
func (c *Cluster) KillContainers(ctx context.Context) error {
	return c.orderContainer(ctx, "kill", "containerd://all")
}

// PauseContainer stops the first process of a container until ResumeContainer; the
// id is as for KillContainer.
func (c *Cluster) PauseContainer(ctx context.Context, id string) error {
	return c.orderContainer(ctx, "pause", id)
}

// ResumeContainer ends PauseContainer.
func (c *Cluster) ResumeContainer(ctx context.Context, id string) error {
	return c.orderContainer(ctx, "resume", id)
}

func (c *Cluster) orderContainer(ctx context.Context, order, id string) error {
	if !c.Owned {
		return fmt.Errorf("%s container %s: the cluster of KUBECONFIG is not this test's", order, id)
	}
	_, id, found := strings.Cut(id, "://")
	if !found {
		return fmt.Errorf("container id %q: want containerd://<id>", id)
	}
	return controlplane.Component(ctx, c.DataDir, order+"-container", id)
}
