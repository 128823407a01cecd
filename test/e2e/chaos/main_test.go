//go:build chaos

// Package chaos introduces one fault after another in a cluster that runs pods, one in each
// trial. Meanwhile requests go through two edges, one that reads files and one that reads
// the Secret, and pods are created all the time. A trial fails if requests or pods are lost
// without need. At the end the package prints a table of the results. It needs a cluster
// that it starts itself: with KUBECONFIG most trials fail, with a message that says so.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/test/framework/traffic"
)

// lifetime is the lifetime of every certificate here: the agent renews its files after half
// of it, the controller its Secrets after a third. The rest has to be longer than a kubelet
// takes to update a Secret in a pod's volume: after an outage of the API server it retries
// after up to a minute.
const lifetime = "4m"

// These are shared by the trials.
var (
	cluster *node.Cluster
	edges   *traffic.Traffic
	results table
)

func TestMain(m *testing.M) {
	status, err := run(context.Background(), m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	results.print(os.Stdout)
	os.Exit(status)
}

func run(ctx context.Context, m *testing.M) (status int, err error) {
	if cluster, err = node.Start(ctx); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error {
			return cluster.InstallIstio(ctx, "env.MAX_WORKLOAD_CERT_TTL="+lifetime, "env.DEFAULT_WORKLOAD_CERT_TTL="+lifetime)
		},
		func(ctx context.Context) error { return cluster.InstallIsthmus(ctx) },
		func(ctx context.Context) (err error) {
			edges, err = traffic.Deploy(ctx, traffic.Options{Config: cluster.Admin, Lifetime: lifetime})
			return err
		},
	} {
		if err == nil {
			err = step(ctx)
		}
	}
	if err == nil {
		status = m.Run()
	}
	if err != nil || status != 0 {
		cluster.Dump(os.Stderr)
	}
	return status, err
}
