// Package injector tests Isthmus beside Istio's own injector: one API server with
// the chart's webhook configuration and with the one that Istio's chart renders,
// `isthmus webhook` and two real istiods behind them, of the default revision and
// of the revision canary. Real pods are created through both. There is no node,
// so pods stay pending, and Envoy and iptables do not run: what is judged is the
// pod that the API server stores.
package injector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

const (
	// canary is the second revision, prod a tag of the default one, next a tag of
	// canary.
	canary, prod, next = "canary", "prod", "next"
	// excluded is a namespace whose pods no webhook is asked about.
	excluded = "isthmus-test-excluded"

	patience = 60 * time.Second
)

// chain is what the tests share, one after the other. TestMain sets it.
var chain struct {
	*environment.Environment
	// canary is the istiod of that revision; World.Istiod is the default one.
	canary *istio.Istiod
	// webhook is the replica of ours.
	webhook *environment.Server
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (status int) {
	ctx := context.Background()
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var err error
	chain.Environment, err = environment.Start(ctx, istio.Options{Injector: installed("")}, "{webhook: {excludedNamespaces: ["+excluded+"]}}")
	if err != nil {
		return fail(err)
	}
	defer func() {
		if status != 0 {
			chain.Dump(os.Stderr)
		}
		if err := stop(); err != nil {
			status = fail(err)
		}
	}()
	if chain.canary, err = istio.Start(ctx, chain.Plane, istio.Options{Revision: canary, Injector: installed(canary)}); err != nil {
		return fail(err)
	}
	if _, err = chain.StartController(ctx); err != nil {
		return fail(err)
	}
	if chain.webhook, err = chain.StartWebhook(ctx); err != nil {
		return fail(err)
	}
	if err := ready(ctx); err != nil {
		return fail(err)
	}
	return m.Run()
}

func stop() error {
	var errs []error
	if chain.canary != nil {
		errs = append(errs, chain.canary.Stop())
	}
	return errors.Join(append(errs, chain.Environment.Stop())...)
}

// installed is how the injector of a revision is installed for most tests.
func installed(revision string) *istio.Injector {
	if revision == canary {
		return &istio.Injector{Tags: []string{next}}
	}
	return &istio.Injector{Tags: []string{prod}}
}
