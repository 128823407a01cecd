//go:build e2e

// Package e2e tests Isthmus in a whole cluster that runs pods: KUBECONFIG's, or one
// of a single node that the test starts. Istio and Isthmus are installed by their
// charts, once for all tests; a test that changes what they share restores it.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/node"
)

// cluster is what the tests share.
var cluster *node.Cluster

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status, err := run(ctx, m)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func run(ctx context.Context, m *testing.M) (status int, err error) {
	if cluster, err = node.Start(ctx); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	err = cluster.InstallIstio(ctx)
	if err == nil {
		err = cluster.InstallIsthmus(ctx)
	}
	if err == nil {
		status = m.Run()
	}
	if err != nil || status != 0 {
		cluster.Dump(os.Stderr)
	}
	return status, err
}
