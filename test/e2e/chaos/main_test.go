//go:build chaos

// Package chaos breaks one thing after the other in a whole cluster that runs pods,
// while requests go through two edges, one that reads files and one that reads
// the Secret, and pods are asked for all the time, and judges
// each by what was lost: a table is the last that it prints. Only a cluster that it
// starts itself is broken: with KUBECONFIG most trials fail, and say so.
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

// lifetime is that of every certificate here: the agent renews its files at half of
// it, the controller its Secrets at a third. What is left then has to be longer than
// a kubelet takes to have a Secret's new content in a pod's volume: where the API
// server was away it asks again after up to a minute.
const lifetime = "4m"

// What the trials share.
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
