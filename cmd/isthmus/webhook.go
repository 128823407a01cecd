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
	sans       []string
	leafTTL    time.Duration
}

func newWebhookCommand() *cobra.Command {
	f := &webhookFlags{}
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Serve the admission webhook that injects edge pods",
		Long: "Serve the admission webhooks, which inject edge pods and validate workloads and namespaces.\n" +
			"The Helm chart runs this command; run it yourself only for development.",
		Example: "  # As the chart runs it, with serving certificates of the controller's CA\n" +
			"  isthmus webhook --ca-secret isthmus-webhook-ca --service isthmus-webhook --namespace isthmus-system\n" +
			"  # On a developer's machine\n" +
			"  isthmus webhook --tls-cert-dir ./certs --kubeconfig ./kubeconfig",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	f.add(flags)
	flags.StringVar(&f.server.Host, "host", "", "address to serve reviews on (default: all)")
	flags.IntVar(&f.server.Port, "port", 10250, "port to serve reviews on; private clusters usually allow their API server to reach 10250")
	flags.DurationVar(&f.server.ShutdownDelay, "shutdown-delay", 5*time.Second, "how long reviews are answered after the signal to stop, until the endpoint is removed from the Service")
	flags.StringVar(&f.service, "service", "isthmus-webhook", "Service that the API server calls")
	flags.StringVar(&f.tlsCertDir, "tls-cert-dir", "", "directory with tls.crt and tls.key of the serving certificate, instead of --ca-secret")
	flags.StringArrayVar(&f.sans, "serving-name", nil, "additional DNS name or IP address in the serving certificate, for a webhook configuration with a URL; can be repeated")
	flags.DurationVar(&f.leafTTL, "leaf-ttl", serving.DefaultLeafTTL, "lifetime of the serving certificate")
	return cmd
}

// The limits of the flags. Without a delay the reviews that API servers still send are
// refused; with a long one the kubelet kills the process first. The chart has the same.
const (
	minShutdownDelay = time.Second
	maxShutdownDelay = time.Minute
	minLeafTTL       = 5 * time.Second
)

func (f *webhookFlags) check() error {
	switch {
	case (f.caSecret == "") == (f.tlsCertDir == ""):
		return usagef("want either --ca-secret or --tls-cert-dir")
	case f.caSecret != "" && f.namespace == "":
		return usagef("--namespace is empty and POD_NAMESPACE is not set: want the namespace of Secret %s", f.caSecret)
	case f.server.Port < 1 || f.server.Port > 65535:
		return usagef("--port %d: want a port from 1 to 65535", f.server.Port)
	case f.server.ShutdownDelay < minShutdownDelay || f.server.ShutdownDelay > maxShutdownDelay:
		return usagef("--shutdown-delay %s: want a duration from %s to %s", f.server.ShutdownDelay, minShutdownDelay, maxShutdownDelay)
	case f.leafTTL < minLeafTTL:
		return usagef("--leaf-ttl %s: want at least %s, of which the last third is left for the renewal", f.leafTTL, minLeafTTL)
	}
	return f.serverFlags.check()
}

// limitHeap limits the Go heap to three quarters of the memory limit: the kernel also
// counts the buffers of connections, which are many under attack.
func limitHeap() {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		debug.SetMemoryLimit(limit / 4 * 3)
	}
}

func (f *webhookFlags) run(cmd *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	limitHeap()
	log, options, config, err := f.setUp(cmd)
	if err != nil {
		return err
	}
	// Namespaces that are newer than the cache are read from the API server, whose
	// priority and fairness limits the requests too.
	config.QPS, config.Burst = 50, 100
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("create client: %w", err)
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
		return serving.NewFileSource(serving.FileOptions{
			CertFile: filepath.Join(f.tlsCertDir, "tls.crt"), KeyFile: filepath.Join(f.tlsCertDir, "tls.key"),
			Client: client, ConfigurationName: f.configuration, Log: log,
		})
	}
	o := serving.Options{
		Client: client, Namespace: f.namespace, SecretName: f.caSecret, ConfigurationName: f.configuration,
		DNSNames: serving.ServiceNames(f.service, f.namespace),
		LeafTTL:  f.leafTTL, Log: log, Registerer: metrics.Registry,
	}
	for _, san := range f.sans {
		if ip := net.ParseIP(san); ip != nil {
			o.IPAddresses = append(o.IPAddresses, ip)
		} else {
			o.DNSNames = append(o.DNSNames, san)
		}
	}
	return serving.NewSource(o)
}
