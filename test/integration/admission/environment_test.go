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

// awaitTimeout is how long a condition may take on a busy machine, far longer than normal.
const awaitTimeout = 60 * time.Second

// environment is an API server with the chart installed, a controller, and a webhook
// behind a proxy.
type environment struct {
	folder       string
	plane        *controlplane.Plane
	config       *rest.Config
	client       kubernetes.Interface
	objectClient client.Client
	// binary is the path of isthmus.
	binary string
	// chart are the objects that Helm renders, installed those that install created.
	chart, installed []*unstructured.Unstructured
	// service has the address that the API server calls, and forwards to replicas.
	service *serviceProxy
	// server is the replica of the webhook that answers unless a test replaces it.
	server *replica
	// controller writes the CA and the caBundle.
	controller *replica
	// replicas are all processes that were started.
	replicas []*replica
}

// newEnvironment returns an environment. The caller must close it even after an error.
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
	if e.objectClient, err = client.New(e.config, client.Options{}); err != nil {
		return e, err
	}
	if e.binary, err = buildBinary(ctx, folder); err != nil {
		return e, err
	}
	if e.chart, err = renderChart(ctx, folder); err != nil {
		return e, err
	}
	if e.service, err = startServiceProxy(); err != nil {
		return e, err
	}
	if err := e.install(ctx); err != nil {
		return e, fmt.Errorf("install the chart: %w", err)
	}
	err = e.startServer(ctx)
	return e, err
}

// startServer starts the controller and a replica of the webhook, and waits until the API
// server gets answers from it.
func (e *environment) startServer(ctx context.Context) error {
	var err error
	if e.controller, err = e.startController(ctx); err != nil {
		return err
	}
	if e.server, err = e.startReplica(ctx); err != nil {
		return err
	}
	e.service.setReplicas(e.server)
	return errors.Join(e.awaitInjection(ctx), e.awaitValidation(ctx))
}

// stopServer stops the processes that startServer started.
func (e *environment) stopServer(ctx context.Context) error {
	return errors.Join(e.server.stop(ctx), e.controller.stop(ctx))
}

// close stops all processes. If a test has failed, it writes their logs.
func (e *environment) close(ctx context.Context, failed bool) error {
	var errs []error
	for _, r := range e.replicas {
		errs = append(errs, r.stop(ctx))
		if failed {
			_, _ = fmt.Fprintf(os.Stderr, "--- %s:\n%s\n", filepath.Base(r.log), r.logTail())
		}
	}
	if e.service != nil {
		errs = append(errs, e.service.stop())
	}
	if e.objectClient != nil {
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

// buildBinary builds isthmus, with the race detector if the test has it.
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

// output runs a program and returns its standard output. The program's standard error is
// copied to that of the test, since it may show progress, and into the error.
func output(ctx context.Context, program string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, program, arguments...)
	var stderr strings.Builder
	command.Stderr = io.MultiWriter(os.Stderr, &stderr)
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(arguments, " "), err, stderr.String())
	}
	return string(out), nil
}

// await calls check until it returns nil; its last error is the one returned.
func await(ctx context.Context, check func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, awaitTimeout, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}
