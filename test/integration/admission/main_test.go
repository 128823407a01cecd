// Package admission tests Isthmus on a real API server: the chart's manifests are installed
// with nothing changed but the address of the webhook, and pods are created through the API
// server. There is no node, so pods stay pending.
//
// The API server comes from test/tools/cluster. KUBECONFIG names another one to use, which
// must be able to call this machine on 127.0.0.1. The tests delete everything that they
// create there.
package admission

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// env is the environment that the tests of this package share, since starting a control
// plane for each of them would take too long. TestMain sets it.
var env *environment

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (status int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	folder, err := os.MkdirTemp("", "isthmus-admission-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	e, err := newEnvironment(ctx, folder)
	defer func() {
		if err := e.close(context.WithoutCancel(ctx), status != 0); err != nil {
			fmt.Fprintln(os.Stderr, "clean up:", err)
			status = 1
		}
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
		return 1
	}
	env = e
	return m.Run()
}
