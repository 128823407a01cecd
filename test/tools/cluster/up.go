package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/imagebuilder"
	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/singlenode"
)

// upFlags are the flags of up.
type upFlags struct {
	data, kubeconfig   string
	controllerManager  bool
	node               bool
	maxPods            int
	detach, background bool
	timeout            time.Duration
}

func (f *upFlags) bind(flags *flag.FlagSet) {
	flags.StringVar(&f.data, "data", "", "`folder` for everything that the control plane writes, removed at the end (default: a new temporary folder)")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "another `file` to write the admin's kubeconfig to, removed at the end")
	flags.BoolVar(&f.controllerManager, "controller-manager", false, "also start the kube-controller-manager, which creates the pods of a Deployment")
	flags.BoolVar(&f.node, "node", false, "start a whole cluster of one node, which runs pods; needs Linux and root")
	flags.IntVar(&f.maxPods, "max-pods", 110, "maximum number of pods on the node")
	flags.BoolVar(&f.detach, "detach", false, "leave it running in the background; needs --data; down stops it")
	flags.BoolVar(&f.background, "background", false, "internal: be the background process of up --detach")
	flags.DurationVar(&f.timeout, "timeout", 2*time.Minute, "how long the start may take after everything is built")
}

func runUp(ctx context.Context, arguments []string, std streams) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	var chosen upFlags
	chosen.bind(flags)
	if err := parse(flags, arguments, std, ""); err != nil {
		return err
	}
	if chosen.detach {
		return detach(ctx, chosen, std)
	}
	return runUntilStopped(ctx, chosen, std)
}

// artifacts are the files that a start needs.
type artifacts struct {
	programs map[string]string
	// packages and images are empty without --node.
	packages string
	images   []string
}

// build builds the programs and images that up needs and reports progress on
// standard error.
func (f upFlags) build(ctx context.Context, std streams) (artifacts, error) {
	builder, err := newBuilder(std)
	if err != nil {
		return artifacts{}, err
	}
	names := []string{"etcd", "kube-apiserver", "kubectl"}
	if f.controllerManager || f.node {
		names = append(names, "kube-controller-manager")
	}
	if f.node {
		names = append(names, "kube-scheduler", "kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr")
	}
	programs, err := builder.Build(ctx, names...)
	if err != nil || !f.node {
		return artifacts{programs: programs}, err
	}
	packages, err := builder.Packages(ctx, "containernetworking-plugins", "iproute2", "nftables", "runc")
	if err != nil {
		return artifacts{}, err
	}
	archives, err := imagebuilder.Build(ctx, builder)
	return artifacts{programs: programs, packages: packages, images: archives}, err
}

// runUntilStopped starts a control plane, prints its endpoint and runs it until ctx
// ends, standard input closes, or a component fails.
func runUntilStopped(ctx context.Context, f upFlags, std streams) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if f.background {
		std.err = progressWriter{std.out}
	} else {
		go cancelWithParent(cancel, std.in)
	}
	running, err := f.start(ctx, std)
	if err != nil {
		if f.background {
			err = errors.Join(err, json.NewEncoder(std.out).Encode(announcement{Error: err.Error()}))
		}
		return err
	}
	if err := json.NewEncoder(std.out).Encode(running.Endpoint()); err != nil {
		return errors.Join(fmt.Errorf("announce the control plane: %w", err), running.Stop())
	}
	select {
	case <-ctx.Done():
		return running.Stop()
	case err := <-running.Failed():
		return errors.Join(err, running.Stop())
	}
}

// cluster is a running control plane, or a whole cluster of one node.
type cluster interface {
	Endpoint() apiserver.Endpoint
	Failed() <-chan error
	Stop() error
}

// start builds what the cache does not hold and starts the cluster.
func (f upFlags) start(ctx context.Context, std streams) (cluster, error) {
	built, err := f.build(ctx, std)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := absolute(f.kubeconfig)
	if err != nil {
		return nil, err
	}
	if f.node {
		return singlenode.Start(ctx, singlenode.Options{
			Folder:   f.data,
			Programs: built.programs,
			Packages: built.packages,
			Images:   built.images,
			MaxPods:  f.maxPods,
			Timeout:  f.timeout,
		}, kubeconfig, std.err)
	}
	return apiserver.Start(ctx, apiserver.Options{
		Folder:            f.data,
		Programs:          built.programs,
		ControllerManager: f.controllerManager,
		Kubeconfig:        kubeconfig,
		Timeout:           f.timeout,
	})
}

var (
	errInputClosed = errors.New("standard input was closed")
	errOrphaned    = errors.New("the process that started this one has ended")
)

// cancelWithParent cancels when the parent process has ended: standard input is a
// pipe and closes, or this process has another parent. The latter happens when go
// run, which is between this process and its caller, is killed.
func cancelWithParent(cancel context.CancelCauseFunc, in *os.File) {
	info, err := in.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return
	}
	parent := os.Getppid()
	go func() {
		for range time.Tick(500 * time.Millisecond) {
			if os.Getppid() != parent {
				cancel(errOrphaned)
				return
			}
		}
	}()
	_, _ = io.Copy(io.Discard, in)
	cancel(errInputClosed)
}

func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}
