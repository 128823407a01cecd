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

// istiodName is the name of istiod's folder, log and note of its process.
const istiodName = "istiod"

// mesh brings Istio into the cluster: its CRDs, its configuration, and the real
// istiod as a process.
func (d *demo) mesh(ctx context.Context) error {
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
	d.screen.say("Applying Istio's CRDs and the mesh's configuration")
	if err := istiod.Install(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(d.path(istiodName), 0o700); err != nil {
		return err
	}
	// It outlives this program.
	command := exec.CommandContext(context.WithoutCancel(ctx), d.path("bin", "pilot-discovery"), istiod.Flags()...)
	command.Dir, command.Env = d.path(istiodName), process.Environment(istiod.Environment())
	d.screen.say("Starting istiod")
	var r running
	if err := d.launch(ctx, istiodName, &r, command, func() error {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return istiod.Ready(attempt)
	}); err != nil {
		return err
	}
	d.screen.say("istiod is ready: process %d. The mesh's configuration says that it issues certificates on %s,\n"+
		"where a cluster would have istiod.istio-system.svc:15012", r.PID, istiod.Address)
	return nil
}
