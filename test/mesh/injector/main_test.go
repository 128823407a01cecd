// Package injector tests Isthmus beside Istio's own injector: one API server with the
// chart's webhook configuration and with the one that Istio's chart renders, `isthmus
// webhook` and two real istiods behind them, of the default revision and of the revision
// canary. Both inject real pods. There is no node, so pods stay pending, and Envoy and
// iptables do not run: the tests check the pod that the API server stores.
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
	// canary is the second revision, prod a tag of the default one, next a tag of canary.
	canary, prod, next = "canary", "prod", "next"
	// excludedNamespace is a namespace for whose pods no webhook is called.
	excludedNamespace = "isthmus-test-excluded"

	timeout = 60 * time.Second
)

// env is shared by the tests, which run one after the other. TestMain sets it.
var env struct {
	*environment.Environment
	// canary is the istiod of that revision; Environment.Istiod is the default one.
	canary *istio.Istiod
	// webhook is the replica of Isthmus' webhook.
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
	env.Environment, err = environment.Start(ctx, istio.Options{Injector: defaultInjector("")}, "{webhook: {excludedNamespaces: ["+excludedNamespace+"]}}")
	if err != nil {
		return fail(err)
	}
	defer func() {
		if status != 0 {
			env.Dump(os.Stderr)
		}
		if err := stop(); err != nil {
			status = fail(err)
		}
	}()
	if env.canary, err = istio.Start(ctx, env.Plane, istio.Options{Revision: canary, Injector: defaultInjector(canary)}); err != nil {
		return fail(err)
	}
	if _, err = env.StartController(ctx); err != nil {
		return fail(err)
	}
	if env.webhook, err = env.StartWebhook(ctx); err != nil {
		return fail(err)
	}
	if err := awaitWebhooks(ctx); err != nil {
		return fail(err)
	}
	return m.Run()
}

func stop() error {
	var errs []error
	if env.canary != nil {
		errs = append(errs, env.canary.Stop())
	}
	return errors.Join(append(errs, env.Environment.Stop())...)
}

// defaultInjector returns how the injector of a revision is installed for most tests.
func defaultInjector(revision string) *istio.Injector {
	if revision == canary {
		return &istio.Injector{Tags: []string{next}}
	}
	return &istio.Injector{Tags: []string{prod}}
}
