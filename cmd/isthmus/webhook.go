package main

import (
	"fmt"
	"math"
	"net"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/isthmus-mesh/isthmus/webhook"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/serving"
)

// webhookFlags are the flags of the admission server.
type webhookFlags struct {
	serverFlags
	server     webhook.ServerOptions
	service    string
	tlsCertDir string
	names      []string
	leafTTL    time.Duration
}

func newWebhookCommand() *cobra.Command {
	f := &webhookFlags{}
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Serve the admission webhook that injects edge pods",
		Long: "Serve the mutating admission webhook: reviews of pods in, JSON patches out.\n" +
			"The chart runs it; by hand it is of use for development.",
		Example: "  isthmus webhook --ca-secret isthmus-webhook-ca --service isthmus-webhook --namespace isthmus-system\n" +
			"  isthmus webhook --tls-cert-dir ./certs --kubeconfig ./kubeconfig",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	f.add(flags)
	flags.StringVar(&f.server.Host, "host", "", "address to serve reviews on (default: all)")
	flags.IntVar(&f.server.Port, "port", 10250, "port to serve reviews on; private clusters open 10250 to their API server")
	flags.DurationVar(&f.server.ShutdownDelay, "shutdown-delay", 5*time.Second, "how long reviews are answered after the signal to stop, while the endpoint is taken out of the Service")
	flags.StringVar(&f.service, "service", "isthmus-webhook", "Service that the API server calls")
	flags.StringVar(&f.tlsCertDir, "tls-cert-dir", "", "directory with tls.crt and tls.key to serve with, instead of --ca-secret")
	flags.StringArrayVar(&f.names, "serving-name", nil, "further DNS name or IP address in the serving certificate, for a configuration that calls the server by URL; can be repeated")
	flags.DurationVar(&f.leafTTL, "leaf-ttl", serving.DefaultLeafTTL, "lifetime of the serving certificate")
	return cmd
}

func (f *webhookFlags) check() error {
	switch {
	case (f.caSecret == "") == (f.tlsCertDir == ""):
		return usagef("want one of --ca-secret and --tls-cert-dir")
	case f.caSecret != "" && f.namespace == "":
		return usagef("--namespace is empty and POD_NAMESPACE is not set: want the namespace of Secret %s", f.caSecret)
	case f.server.Port < 1 || f.server.Port > 65535:
		return usagef("--port %d: want a port from 1 to 65535", f.server.Port)
	case f.server.ShutdownDelay < 0:
		return usagef("--shutdown-delay %s: want a positive duration", f.server.ShutdownDelay)
	}
	return f.serverFlags.check()
}

// leaveRoom has the collector keep a quarter of the memory limit free: the kernel
// counts buffers of connections too, and under attack they are many.
func leaveRoom() {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		debug.SetMemoryLimit(limit / 4 * 3)
	}
}

func (f *webhookFlags) run(cmd *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	leaveRoom()
	log, options, config, err := f.begin(cmd)
	if err != nil {
		return err
	}
	// For namespaces that are younger than the cache; the API server's own priority
	// and fairness bounds it too.
	config.QPS, config.Burst = 50, 100
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	watcher, err := f.watcher(client, options.Settings.Mesh, log)
	if err != nil {
		return err
	}
	if watcher != nil {
		options.Mesh, options.Injector, f.server.Mesh = watcher.Mesh, watcher.Injector, watcher
	}
	if f.server.Engine, err = inject.New(options); err != nil {
		return err
	}
	if f.server.Certificate, err = f.certificate(client, log); err != nil {
		return err
	}
	f.server.Config, f.server.Log = config, log
	f.server.HealthAddress, f.server.MetricsAddress = f.healthAddress, f.metricsAddress
	return webhook.Serve(cmd.Context(), f.server)
}

func (f *webhookFlags) certificate(client kubernetes.Interface, log logr.Logger) (webhook.Certificate, error) {
	log = log.WithName("serving")
	if f.tlsCertDir != "" {
		return serving.NewFileSource(filepath.Join(f.tlsCertDir, "tls.crt"), filepath.Join(f.tlsCertDir, "tls.key"), log)
	}
	o := serving.Options{
		Client: client, Namespace: f.namespace, SecretName: f.caSecret, ConfigurationName: f.configuration,
		DNSNames: serving.ServiceNames(f.service, f.namespace),
		LeafTTL:  f.leafTTL, Log: log, Registerer: metrics.Registry,
	}
	for _, name := range f.names {
		if ip := net.ParseIP(name); ip != nil {
			o.IPAddresses = append(o.IPAddresses, ip)
		} else {
			o.DNSNames = append(o.DNSNames, name)
		}
	}
	return serving.New(o)
}
