package main

import (
	"errors"
	"os"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/isthmus-mesh/isthmus/internal/mesh"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// serverFlags are the flags that webhook and controller share. The chart sets them.
type serverFlags struct {
	settings       string
	profiles       []string
	configuration  string
	namespace      string
	caSecret       string
	istioNamespace string
	healthAddress  string
	metricsAddress string
	kubeconfig     string
	logLevel       string
}

func (f *serverFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.settings, "settings", "", "settings file in the format of the chart (default: built-in settings)")
	flags.StringArrayVar(&f.profiles, "profiles", nil, "file with additional profiles; can be repeated")
	flags.StringVar(&f.configuration, "webhook-configuration", mesh.DefaultWebhookConfiguration, "name of the webhook configurations, mutating and validating, that send reviews to the webhook")
	flags.StringVar(&f.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace that Isthmus is installed in (default: $POD_NAMESPACE)")
	flags.StringVar(&f.caSecret, "ca-secret", "", "Secret with the CA of the webhook's serving certificates, which the controller maintains")
	flags.StringVar(&f.istioNamespace, "istio-namespace", mesh.DefaultNamespace, "namespace of istiod, from which mesh settings are discovered; empty disables the discovery")
	flags.StringVar(&f.healthAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	flags.StringVar(&f.metricsAddress, "metrics-bind-address", ":8080", "address of /metrics; 0 disables it")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig (default: the pod's service account, then $KUBECONFIG)")
	flags.StringVar(&f.logLevel, "log-level", "info", "info, or debug to log every decision")
}

func (f *serverFlags) check() error {
	if f.logLevel != "info" && f.logLevel != "debug" {
		return usagef("--log-level %q: want info or debug", f.logLevel)
	}
	return nil
}

// logger creates the logger of the process.
func (f *serverFlags) logger(cmd *cobra.Command) logr.Logger {
	level := zapcore.InfoLevel
	if f.logLevel == "debug" {
		level = zapcore.DebugLevel
	}
	// The stack trace of an error does not help the user, and a panic has its own.
	log := zap.New(zap.WriteTo(cmd.ErrOrStderr()), zap.Level(level), zap.StacktraceLevel(zapcore.PanicLevel))
	ctrllog.SetLogger(log)
	return log
}

// restConfig prefers --kubeconfig, then the pod's service account, then $KUBECONFIG.
func (f *serverFlags) restConfig() (*rest.Config, error) {
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

// setUp creates the logger, the options of the engine and the client configuration for
// the API server.
func (f *serverFlags) setUp(cmd *cobra.Command) (logr.Logger, inject.Options, *rest.Config, error) {
	log := f.logger(cmd)
	options, err := engineOptions(f.settings, f.profiles)
	if err != nil {
		return log, options, nil, err
	}
	config, err := f.restConfig()
	return log, options, config, err
}

// watcher creates the watcher of Istio's settings in the cluster, or returns nil if
// the discovery is disabled.
func (f *serverFlags) watcher(client kubernetes.Interface, explicit patches.Mesh, log logr.Logger) (*mesh.Watcher, error) {
	if f.istioNamespace == "" {
		return nil, nil
	}
	return mesh.NewWatcher(mesh.Options{
		Client: client, Namespace: f.istioNamespace, Explicit: explicit, WebhookConfiguration: f.configuration,
		Log: log.WithName("mesh"), Registerer: metrics.Registry,
	})
}
