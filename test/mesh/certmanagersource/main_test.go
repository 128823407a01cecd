// Package certmanagersource proves the source cert-manager against cert-manager's real
// controllers and a real API server. cert-manager's webhook does not run, so the tests do
// not show what it would refuse.
package certmanagersource

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certmanager"
	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

var (
	// admin reaches the API server as its administrator.
	admin *rest.Config
	// beforeInstall is the error of the source before the CRDs are installed.
	beforeInstall error
)

func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}

func run(m *testing.M) (int, error) {
	log.SetLogger(logr.Discard()) // of the tests' own client
	ctx := context.Background()
	p, err := controlplane.Start(ctx)
	if err != nil {
		return 1, err
	}
	defer func() { _ = p.Stop() }()
	if admin, err = p.Admin(); err != nil {
		return 1, err
	}
	source, err := newSource(admin, cmmeta.IssuerReference{Name: "ca"})
	if err != nil {
		return 1, err
	}
	_, beforeInstall = source.Bundle(ctx, certs.Request{Namespace: "default", Secret: "istio-certs", Want: certs.Want{Now: time.Now()}})
	controllers, err := certmanager.Start(ctx, p.Kubeconfig)
	if err != nil {
		return 1, err
	}
	status := m.Run()
	if status != 0 {
		fmt.Fprintf(os.Stderr, "--- cert-manager:\n%s\n", controlplane.Tail(controllers.Log, 30))
	}
	return status, controllers.Stop()
}
