//go:build e2e

// Package lifecycle tests Isthmus on a cluster that runs pods: the one that KUBECONFIG names,
// or one of a single node that the package starts. Requests go through edges from the
// installation to the end of the tests, and none may fail. See docs/testing.md.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/framework/node"
)

var (
	// cluster is the cluster of all tests.
	cluster *node.Cluster
	// installation is what the tests have installed in the cluster.
	installation *installationState
	// isthmusInstalled is held for reading by tests that need a running Isthmus, and for
	// writing by tests that uninstall it; see newNamespace and lockInstallation.
	isthmusInstalled sync.RWMutex
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run returns the exit status.
func run(m *testing.M) int {
	status, err := runTests(context.Background(), m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(status, 1)
	}
	return status
}

// runTests starts the cluster, installs everything, runs the tests, reports the traffic, and
// leaves the cluster as it was.
func runTests(ctx context.Context, m *testing.M) (status int, err error) {
	if cluster, err = node.Start(ctx); err != nil {
		return 1, err
	}
	installation, err = install(ctx)
	defer func() {
		if status != 0 || err != nil {
			cluster.Dump(os.Stderr)
		}
		err = errors.Join(err, installation.uninstall(ctx), cluster.Stop())
	}()
	if err != nil {
		return 1, err
	}
	status = m.Run()
	measurements.print(os.Stdout)
	return status, installation.reportTraffic(ctx, os.Stdout)
}

// lockInstallation waits until no other test needs Isthmus as it is, and makes other tests
// wait until this test ends.
func lockInstallation(t *testing.T) {
	t.Helper()
	isthmusInstalled.Lock()
	t.Cleanup(isthmusInstalled.Unlock)
}
