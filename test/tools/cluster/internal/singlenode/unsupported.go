//go:build !linux

package singlenode

import (
	"context"
	"errors"
	"io"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
)

// InsideCommand is the subcommand that runs Inside.
const InsideCommand = "inside"

var errNoLinux = errors.New("a node needs Linux; set KUBECONFIG to use an existing cluster instead")

// Cluster is never created on this system.
type Cluster struct{ *apiserver.DataFolder }

// Start fails: a node needs Linux.
func Start(context.Context, Options, string, io.Writer) (*Cluster, error) { return nil, errNoLinux }

// Failed is never called.
func (*Cluster) Failed() <-chan error { return nil }

// Stop is never called.
func (*Cluster) Stop() error { return nil }

// Inside fails: a node needs Linux.
func Inside(context.Context, string, io.Writer, io.Writer) error { return errNoLinux }

// Order is a request to a running node.
type Order struct {
	Action    string `json:"do"`
	Component string `json:"component"`
}

// SendOrder fails: a node needs Linux.
func SendOrder(context.Context, string, Order) error { return errNoLinux }
