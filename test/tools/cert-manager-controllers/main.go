// Command cert-manager-controllers runs cert-manager's own controllers for tests, at the
// version that go.mod pins: those for issuers of the kinds CA and self-signed. The module of
// cert-manager's program cannot be required, so this is a small main around its registry of
// controllers.
//
// cert-manager's webhook does not run. So only the schema of the CRD validates a Certificate,
// nothing checks who approved a CertificateRequest, and cert-manager's own approver approves
// all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/cert-manager/cert-manager/pkg/controller"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintf(os.Stderr, "cert-manager-controllers: %v\n", err)
		os.Exit(1)
	}
}

// run runs every registered controller until the context ends or the input does,
// so that a killed test leaves nothing behind. It says "running" once they are.
func run(ctx context.Context, arguments []string, input io.Reader, output io.Writer) error {
	var options controller.ContextOptions
	flags := flag.NewFlagSet("cert-manager-controllers", flag.ContinueOnError)
	flags.StringVar(&options.Kubeconfig, "kubeconfig", "", "path of the kubeconfig (required)")
	flags.StringVar(&options.ClusterResourceNamespace, "cluster-resource-namespace", "cert-manager", "namespace of a ClusterIssuer's Secrets")
	flags.DurationVar(&options.CertificateRequestMinimumBackoffDuration, "minimum-backoff", time.Hour, "wait after the first failed CertificateRequest")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if options.Kubeconfig == "" {
		return errors.New("--kubeconfig is required")
	}
	// cert-manager's own default.
	options.CertificateRequestMaximumBackoffDuration = 32 * time.Hour

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, input)
		cancel()
	}()

	factory, err := controller.NewContextFactory(ctx, options)
	if err != nil {
		return err
	}
	known := controller.Known()
	names := slices.Sorted(maps.Keys(known))
	var controllers []controller.Interface
	for _, name := range names {
		c, err := known[name](factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		controllers = append(controllers, c)
	}
	// The constructors have requested the shared informers.
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())

	var all sync.WaitGroup
	ended := make([]error, len(controllers))
	for i, c := range controllers {
		all.Go(func() {
			defer cancel()
			if err := c.Run(2, ctx); err != nil {
				ended[i] = fmt.Errorf("%s: %w", names[i], err)
			}
		})
	}
	if _, err := fmt.Fprintln(output, "running", names); err != nil {
		return err
	}
	all.Wait()
	return errors.Join(ended...)
}
