package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/isthmus-mesh/isthmus/internal/mesh"
	"github.com/isthmus-mesh/isthmus/webhook"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/serving"
)

// webhookFlags are the flags of the admission server. The chart sets them.
type webhookFlags struct {
	server         webhook.ServerOptions
	settings       string
	profiles       []string
	configuration  string
	service        string
	namespace      string
	caSecret       string
	tlsCertDir     string
	names          []string
	leafTTL        time.Duration
	istioNamespace string
	kubeconfig     string
	logLevel       string
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
	flags.StringVar(&f.server.Host, "host", "", "address to serve reviews on (default: all)")
	flags.IntVar(&f.server.Port, "port", 10250, "port to serve reviews on; private clusters open 10250 to their API server")
	flags.StringVar(&f.server.HealthAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	flags.StringVar(&f.server.MetricsAddress, "metrics-bind-address", ":8080", "address of /metrics; 0 serves none")
	flags.DurationVar(&f.server.ShutdownDelay, "shutdown-delay", 5*time.Second, "how long reviews are answered after the signal to stop, while the endpoint is taken out of the Service")
	flags.StringVar(&f.settings, "settings", "", "settings file, as the chart writes it (default: built-in settings)")
	flags.StringArrayVar(&f.profiles, "profiles", nil, "file with more profiles; can be repeated")
	flags.StringVar(&f.configuration, "webhook-configuration", "isthmus-injector", "MutatingWebhookConfiguration that sends reviews here; ready once its caBundle carries the CA")
	flags.StringVar(&f.service, "service", "isthmus-webhook", "Service that the API server calls")
	flags.StringVar(&f.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace of the Service and the Secret (default: $POD_NAMESPACE)")
	flags.StringVar(&f.caSecret, "ca-secret", "", "Secret with the CA that isthmus controller keeps; each replica signs its own serving certificate")
	flags.StringVar(&f.tlsCertDir, "tls-cert-dir", "", "directory with tls.crt and tls.key to serve with, instead of --ca-secret")
	flags.StringArrayVar(&f.names, "serving-name", nil, "further DNS name or IP address in the serving certificate, for a configuration that calls the server by URL; can be repeated")
	flags.DurationVar(&f.leafTTL, "leaf-ttl", serving.DefaultLeafTTL, "lifetime of the serving certificate")
	flags.StringVar(&f.istioNamespace, "istio-namespace", mesh.DefaultNamespace, "namespace of istiod, where mesh settings are discovered; empty discovers nothing")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig (default: the pod's service account, then $KUBECONFIG)")
	flags.StringVar(&f.logLevel, "log-level", "info", "info, or debug for a line about every pod that was reviewed")
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
	case f.logLevel != "info" && f.logLevel != "debug":
		return usagef("--log-level %q: want info or debug", f.logLevel)
	}
	return nil
}

func (f *webhookFlags) run(cmd *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	level := zapcore.InfoLevel
	if f.logLevel == "debug" {
		level = zapcore.DebugLevel
	}
	// A stack says nothing of a ConfigMap that is wrong; panics bring their own.
	log := zap.New(zap.WriteTo(cmd.ErrOrStderr()), zap.Level(level), zap.StacktraceLevel(zapcore.PanicLevel))
	ctrllog.SetLogger(log)

	options, err := engineOptions(f.settings, f.profiles)
	if err != nil {
		return err
	}
	config, err := f.restConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	if f.istioNamespace != "" {
		watcher, err := mesh.NewWatcher(mesh.Options{
			Client: client, Namespace: f.istioNamespace, Explicit: options.Settings.Mesh,
			Log: log.WithName("mesh"), Registerer: metrics.Registry,
		})
		if err != nil {
			return err
		}
		options.Mesh, f.server.Mesh = watcher.Mesh, watcher
	}
	if f.server.Engine, err = inject.New(options); err != nil {
		return err
	}
	if f.server.Certificate, err = f.certificate(client, log); err != nil {
		return err
	}
	f.server.Config, f.server.Log = config, log
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

// restConfig prefers what the user names, then the pod, then the environment.
func (f *webhookFlags) restConfig() (*rest.Config, error) {
	if f.kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err == nil || !errors.Is(err, rest.ErrNotInCluster) {
			return config, err
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
}
