package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// requestTimeout limits a request to the API server.
const requestTimeout = 10 * time.Second

// source is the value of the Secret's annotation policy.SourceKey.
const source = string(policy.Agent)

// options are the flags of the command line.
type options struct {
	dir, rootsFile            string
	secret, namespace         string
	trustDomain               string
	serviceAccount            string
	kubeconfig, pod, logLevel string
	checkInterval             time.Duration
	version                   bool
}

// defaults reads the pod's environment.
func defaults(getenv func(string) string) *options {
	return &options{namespace: getenv("POD_NAMESPACE"), serviceAccount: getenv("SERVICE_ACCOUNT"), pod: getenv("POD_NAME")}
}

func (o *options) flags() *pflag.FlagSet {
	flags := pflag.NewFlagSet("isthmus-publish", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	flags.StringVar(&o.dir, "dir", "", "directory with key.pem, cert-chain.pem and root-cert.pem (required)")
	flags.StringVar(&o.secret, "secret", "", "name of the Secret (required)")
	flags.StringVar(&o.trustDomain, "trust-domain", "", "trust domain of the mesh (required)")
	flags.StringVar(&o.rootsFile, "roots-file", "/var/run/secrets/istio/root-cert.pem", "root certificates of the mesh")
	flags.StringVar(&o.namespace, "namespace", o.namespace, "namespace of the Secret and the edge (default: $POD_NAMESPACE)")
	flags.StringVar(&o.serviceAccount, "service-account", o.serviceAccount, "service account of the edge (default: $SERVICE_ACCOUNT)")
	flags.DurationVar(&o.checkInterval, "check-every", time.Minute, "how often to check the Secret when nothing has changed")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig (default: the pod's service account)")
	flags.StringVar(&o.logLevel, "log-level", "info", "info, or debug to log every check")
	flags.BoolVar(&o.version, "version", false, "print the version and exit")
	for _, name := range []string{"namespace", "service-account"} {
		flags.Lookup(name).DefValue = "" // the description states the default
	}
	return flags
}

// validate checks the command line. Values that the environment gives are not part of
// it: see identity.
func (o *options) validate(flags *pflag.FlagSet) error {
	for _, flag := range []struct {
		name, value   string
		inEnvironment bool
	}{
		{"dir", o.dir, false},
		{"secret", o.secret, false},
		{"trust-domain", o.trustDomain, false},
		{"roots-file", o.rootsFile, false},
		{"namespace", o.namespace, true},
		{"service-account", o.serviceAccount, true},
	} {
		if flag.value == "" && (!flag.inEnvironment || flags.Changed(flag.name)) {
			return fmt.Errorf("--%s is empty", flag.name)
		}
	}
	if o.checkInterval <= 0 {
		return fmt.Errorf("--check-every %s: want a positive duration", o.checkInterval)
	}
	if o.logLevel != "info" && o.logLevel != "debug" {
		return fmt.Errorf("--log-level %q: want info or debug", o.logLevel)
	}
	if _, err := spiffeid.TrustDomainFromString(o.trustDomain); err != nil {
		return fmt.Errorf("--trust-domain %q: %w", o.trustDomain, err)
	}
	return nil
}

// identity is the SPIFFE ID of the edge.
func (o *options) identity() (spiffeid.ID, error) {
	switch {
	case o.namespace == "":
		return spiffeid.ID{}, errors.New("the environment variable POD_NAMESPACE is empty: set it, or --namespace")
	case o.serviceAccount == "":
		return spiffeid.ID{}, errors.New("the environment variable SERVICE_ACCOUNT is empty: set it, or --service-account")
	default:
		return certs.Identity(o.trustDomain, o.namespace, o.serviceAccount)
	}
}

// publish publishes the bundles of the directory until ctx ends. The error is why it
// cannot.
func (o *options) publish(ctx context.Context, log *slog.Logger) error {
	id, err := o.identity()
	if err != nil {
		return err
	}
	client, err := o.client(requestTimeout)
	if err != nil {
		return err
	}
	watcher, err := o.client(0) // a watch lasts
	if err != nil {
		return err
	}
	follower := newSecretFollower(func(ctx context.Context) (watch.Interface, error) {
		return watcher.Watch(ctx, o.namespace, o.secret)
	}, rand.Float64, log)
	directory := certs.NewDirectory(certs.DirectoryOptions{
		Path: o.dir, RootsFile: o.rootsFile, ID: id,
		Rejected: func(err error) {
			log.Warn("rejected the certificate files", "reason", string(certs.ReasonOf(err)), "error", err.Error())
		},
		Log: logr.FromSlogHandler(log.Handler()),
	})
	loop := &publishLoop{
		publisher: &publish.Publisher{Secrets: client},
		target:    publish.Target{Namespace: o.namespace, Name: o.secret, ID: id, Source: source},
		roots:     rootsFile{path: o.rootsFile},
		schedule:  schedule{checkInterval: o.checkInterval, random: rand.Float64},
		log:       log,
		versions:  follower.versions,
	}
	log.Info("watching the certificate directory", "version", version, "dir", o.dir, "spiffeID", id.String())
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		ended <- recovered(func() error { return directory.Run(ctx) })
	}()
	followed := make(chan error, 1)
	go func() {
		defer cancel()
		followed <- recovered(func() error {
			follower.run(ctx)
			return nil
		})
	}()
	err = recovered(func() error {
		loop.run(ctx, directory)
		return nil
	})
	cancel()
	return errors.Join(err, <-ended, <-followed)
}

func (o *options) logger(w io.Writer) *slog.Logger {
	level := slog.LevelInfo
	if o.logLevel == "debug" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})).With("secret", o.namespace+"/"+o.secret, "pod", o.pod)
}

// client returns a client whose requests take at most the timeout; zero means any time.
func (o *options) client(timeout time.Duration) (*publish.Client, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	config.Timeout = timeout
	// A rotation takes two requests. client-go's default of five a second would delay
	// a rotation that follows a few others. Without a limit, a directory that never
	// stops changing would load the API server.
	config.QPS, config.Burst = 20, 40
	config.UserAgent = fmt.Sprintf("isthmus-publish/%s (%s/%s)", version, runtime.GOOS, runtime.GOARCH)
	config.WarningHandler = rest.NoWarnings{}
	return publish.NewClient(config)
}

func (o *options) config() (*rest.Config, error) {
	if o.kubeconfig != "" {
		return clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	}
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, errors.New("not running in a pod: set --kubeconfig to reach the API server")
	}
	return config, err
}
