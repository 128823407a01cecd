package admission

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// patience is how long anything may take that is awaited: far more than it
// needs, for machines that are busy.
const patience = 60 * time.Second

// environment is an API server with the chart installed, a controller, and a
// webhook server behind a door.
type environment struct {
	folder  string
	plane   *controlplane.Plane
	config  *rest.Config
	client  kubernetes.Interface
	objects client.Client
	// binary is the isthmus that is tested.
	binary string
	// chart is what Helm renders, installed what of it lies in the cluster.
	chart, installed []*unstructured.Unstructured
	// door is the address that the configuration names; who answers behind it
	// can change.
	door *door
	// server is the replica that answers unless a test says otherwise.
	server *replica
	// controller keeps the CA and the caBundle.
	controller *replica
	// replicas are all processes that were ever started.
	replicas []*replica
}

// newEnvironment returns an environment to close even when it returns an error.
func newEnvironment(ctx context.Context, folder string) (*environment, error) {
	e := &environment{folder: folder}
	var err error
	if e.plane, err = controlplane.Start(ctx, "--controller-manager"); err != nil {
		return e, err
	}
	if e.config, err = e.plane.Admin(); err != nil {
		return e, err
	}
	if e.client, err = kubernetes.NewForConfig(e.config); err != nil {
		return e, err
	}
	if e.objects, err = client.New(e.config, client.Options{}); err != nil {
		return e, err
	}
	if e.binary, err = buildBinary(ctx, folder); err != nil {
		return e, err
	}
	if e.chart, err = renderChart(ctx, folder); err != nil {
		return e, err
	}
	if e.door, err = openDoor(); err != nil {
		return e, err
	}
	if err := e.install(ctx); err != nil {
		return e, fmt.Errorf("install the chart: %w", err)
	}
	err = e.startServer(ctx)
	return e, err
}

// startServer starts the controller and the replica that answers, and returns when
// the API server gets answers from it.
func (e *environment) startServer(ctx context.Context) error {
	var err error
	if e.controller, err = e.startController(ctx); err != nil {
		return err
	}
	if e.server, err = e.startReplica(ctx); err != nil {
		return err
	}
	e.door.lead(e.server)
	return errors.Join(e.awaitInjection(ctx), e.awaitValidation(ctx))
}

// stopServer ends what startServer started.
func (e *environment) stopServer(ctx context.Context) error {
	return errors.Join(e.server.stop(ctx), e.controller.stop(ctx))
}

// close ends everything. The logs of the processes are of interest only when a
// test failed.
func (e *environment) close(ctx context.Context, failed bool) error {
	var errs []error
	for _, r := range e.replicas {
		errs = append(errs, r.stop(ctx))
		if failed {
			_, _ = fmt.Fprintf(os.Stderr, "--- %s:\n%s\n", filepath.Base(r.log), r.tail())
		}
	}
	if e.door != nil {
		errs = append(errs, e.door.shut())
	}
	if e.objects != nil {
		errs = append(errs, e.uninstall(ctx))
	}
	if e.plane != nil {
		if failed {
			e.plane.Dump(os.Stderr)
		}
		errs = append(errs, e.plane.Stop())
	}
	return errors.Join(errs...)
}

// buildBinary builds isthmus, with the race detector when the test has it.
func buildBinary(ctx context.Context, folder string) (string, error) {
	path := filepath.Join(folder, "isthmus")
	arguments := []string{"build", "-o", path}
	info, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		arguments = append(arguments, "-race")
	}
	_, err := output(ctx, "go", append(arguments, "../../../cmd/isthmus")...)
	return path, err
}

// output runs a program; its standard error goes to ours, since it may show
// progress, and into the error.
func output(ctx context.Context, program string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, program, arguments...)
	var complaint strings.Builder
	command.Stderr = io.MultiWriter(os.Stderr, &complaint)
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(arguments, " "), err, complaint.String())
	}
	return string(out), nil
}

// await calls check until it returns nil; its last error is the one returned.
func await(ctx context.Context, check func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}
