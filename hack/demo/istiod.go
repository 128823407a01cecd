package main

import (
	"context"
	"os"
	"os/exec"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/test/framework/process"
)

// istiodName is the name of istiod's folder, log and process file.
const istiodName = "istiod"

// startMesh installs Istio's CRDs and configuration, and starts the real istiod as a
// process.
func (d *demo) startMesh(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", d.kubeconfig())
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	istiod, err := istio.NewDiscovery(d.kubeconfig(), client)
	if err != nil {
		return err
	}
	d.screen.printf("Applying Istio's CRDs and the mesh's configuration")
	if err := istiod.Install(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(d.path(istiodName), 0o700); err != nil {
		return err
	}
	// istiod keeps running after this program exits.
	command := exec.CommandContext(context.WithoutCancel(ctx), d.path("bin", "pilot-discovery"), istiod.Flags()...)
	command.Dir, command.Env = d.path(istiodName), process.Environment(istiod.Environment())
	d.screen.printf("Starting istiod")
	var r daemon
	if err := d.launchDaemon(ctx, istiodName, &r, command, func() error {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return istiod.Ready(attempt)
	}); err != nil {
		return err
	}
	d.screen.printf("istiod is ready: process %d. By the mesh's configuration it issues certificates on %s,\n"+
		"where a cluster would have istiod.istio-system.svc:15012", r.PID, istiod.Address)
	return nil
}
