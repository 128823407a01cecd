//go:build e2e

// Package lifecycle runs Isthmus on a whole cluster, whose nodes run pods: the one that
// KUBECONFIG names, or one of a single node that is started for it. Requests go
// through edges from the installation to the end, and none may fail. It takes some
// minutes. See docs/testing.md.
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
	// cluster is where everything runs.
	cluster *node.Cluster
	// installation is what was brought into it.
	installation *installationState
	// isthmusInstalled is held for reading by who needs Isthmus to be there and to answer,
	// and for writing by who takes it away; see open and alone.
	isthmusInstalled sync.RWMutex
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run returns the status to exit with.
func run(m *testing.M) int {
	status, err := runTests(context.Background(), m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(status, 1)
	}
	return status
}

// runTests brings everything up, runs the tests, judges the traffic, and leaves the
// cluster as it was.
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

// lockInstallation waits until no other test needs Isthmus as it is, and keeps the others
// waiting until the test ends.
func lockInstallation(t *testing.T) {
	t.Helper()
	isthmusInstalled.Lock()
	t.Cleanup(isthmusInstalled.Unlock)
}
