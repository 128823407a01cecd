package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/singlenode"
)

// runComponent sends an order about one component to a running node.
func runComponent(ctx context.Context, arguments []string, std streams) error {
	flags := flag.NewFlagSet("component", flag.ContinueOnError)
	data := flags.String("data", "", "the data `folder` of the node: the value of --data, or dataDir of the endpoint that up printed")
	if err := parse(flags, arguments, std, "kill|restart|pause|resume NAME | import TARBALL | kill-container|pause-container|resume-container ID"); err != nil {
		return err
	}
	if flags.NArg() != 2 || *data == "" {
		return errors.New("component needs --data, an order and a name, as in: component --data FOLDER restart kubelet")
	}
	folder, err := absolute(*data)
	if err != nil {
		return err
	}
	return singlenode.SendOrder(ctx, folder, singlenode.Order{Action: flags.Arg(0), Component: flags.Arg(1)})
}

// runInside is the init process of a node's namespaces.
func runInside(ctx context.Context, arguments []string, std streams) error {
	if len(arguments) != 1 {
		return fmt.Errorf("%s takes a data folder", singlenode.InsideCommand)
	}
	return singlenode.Inside(ctx, arguments[0], std.out, std.err)
}
