package istioca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// errConnecting means that the first attempt to connect has not ended yet.
var errConnecting = fmt.Errorf("%w: the connection is not established yet", certs.ErrPending)

// await returns nil when the connection stands. It waits during the first attempt to
// connect only, and at most for Options.Patience; gRPC makes further attempts one at a time,
// in the background, and OnAvailable is called when one succeeds.
func (c *connection) await(ctx context.Context) error {
	state := c.conn.GetState()
	if state == connectivity.Ready {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, c.gate.connecting(time.Now()).Add(c.gate.patience))
	defer cancel()
	for ; state != connectivity.Ready; state = c.conn.GetState() {
		switch state {
		case connectivity.Idle:
			c.conn.Connect()
		case connectivity.TransientFailure:
			if err := c.lastFailure(); err != nil {
				c.announce()
				return err
			}
		case connectivity.Connecting, connectivity.Ready, connectivity.Shutdown:
		}
		if !c.conn.WaitForStateChange(ctx, state) {
			c.announce()
			return errConnecting
		}
	}
	c.gate.connected()
	return nil
}

// announce calls OnAvailable once the connection stands.
func (c *connection) announce() {
	if !c.gate.beginAwaiting() {
		return
	}
	go func() {
		for {
			state := c.conn.GetState()
			switch state {
			case connectivity.Ready, connectivity.Shutdown: // Shutdown: it was replaced
				c.gate.endAwaiting(state == connectivity.Ready)
				return
			case connectivity.Idle:
				c.conn.Connect()
			case connectivity.Connecting, connectivity.TransientFailure:
			}
			c.conn.WaitForStateChange(context.Background(), state)
		}
	}()
}

// lastFailure returns why the last attempt to connect failed: a call says so, and
// fails at once. It returns nil when the call reached a server, because there is a
// connection by now.
func (c *connection) lastFailure() error {
	ctx, cancel := context.WithTimeout(context.Background(), c.gate.patience)
	defer cancel()
	err := c.conn.Invoke(ctx, "/isthmus.dev.None/None", &emptypb.Empty{}, &emptypb.Empty{})
	answer := status.Convert(err)
	if answer.Code() == codes.Unimplemented {
		return nil
	}
	return fmt.Errorf("%s: %s", answer.Code(), answer.Message())
}

// unavailable returns the *Error of a request that the authority did not answer, or did
// not get.
func (c *connection) unavailable(ctx context.Context, r certs.Request, err error) error {
	var last *Error // of another request
	switch untrusted := c.verificationError(); {
	case errors.Is(context.Cause(ctx), context.Canceled):
		return newError(r, Canceled, err)
	case errors.Is(err, certs.ErrBusy):
		return newError(r, Busy, err)
	case untrusted != nil:
		return newError(r, Untrusted, untrusted)
	case errors.As(err, &last):
		return newError(r, last.Reason, last.Err)
	default:
		return newError(r, Unavailable, err)
	}
}
